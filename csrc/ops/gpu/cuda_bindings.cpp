// For the tests and benchmarks of the kernels' compilation for CUDA.
#include <array>
#include <utility>

#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "ops/gpu/bindings.h"
#include "ops/gpu/cuda_kernel.h"
#include "ops/gpu/step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlx_ctc::gpu {

namespace {

using Texts = std::vector<std::pair<std::string, std::string>>;

// The functions of a step's kernels and their texts.
Texts texts(const Plan& plan) {
  Texts result;
  result.reserve(plan.launches.size());
  for (const auto& launch : plan.launches) {
    auto [function, text] = cuda_source(launch);
    result.emplace_back(std::move(function), std::move(text));
  }
  return result;
}

nb::dict describe(const cuda::Compiler::Counts& counts) {
  nb::dict result;
  result["shipped"] = counts.shipped;
  result["loaded"] = counts.loaded;
  result["compiled"] = counts.compiled;
  result["failed"] = counts.failed;
  result["error"] = counts.error;
  return result;
}

nb::bytes as_bytes(const std::string& data) {
  return nb::bytes(data.data(), data.size());
}

std::string as_string(const nb::bytes& data) {
  return std::string(data.c_str(), data.size());
}

void bind_texts(nb::module_& m) {
  m.def(
      "cuda_texts",
      [](std::array<int, 4> shape,
         mx::Dtype dtype,
         int blank,
         bool with_logits,
         bool zero_infinity,
         bool normalized) {
        Problem problem = {
            .T = shape[0],
            .N = shape[1],
            .C = shape[2],
            .S = shape[3],
            .type = type_of(dtype),
            .blank = blank,
            .with_logits = with_logits,
            .zero_infinity = zero_infinity,
            .normalized = normalized,
            .backend = Backend::cuda};
        nb::dict result;
        for (const auto& [name, plan] : all_plans(problem)) {
          result[name.c_str()] = texts(plan);
        }
        return result;
      },
      "shape"_a,
      "dtype"_a,
      nb::kw_only(),
      "blank"_a = 0,
      "with_logits"_a = true,
      "zero_infinity"_a = false,
      "normalized"_a = true,
      "Of each plan the functions and the texts that NVRTC would compile for a batch "
      "of shape (T, N, C, S).");
}

// The codes, compiled at the same time, and the counts.
nb::tuple compile(
    const std::string& library,
    int architecture,
    const Texts& sources,
    const std::string& folder,
    const std::string& shipped,
    const std::string& nvfatbin,
    int driver) {
  constexpr int64_t max_bytes = 1 << 30;
  cuda::Compiler compiler(
      {library, nvfatbin},
      [=] { return cuda::Device{architecture, driver}; },
      cuda::Shipped(shipped),
      cuda::DiskCache(folder, max_bytes));
  auto source = [&](size_t i) {
    return [&sources, i] {
      return cuda::Source{sources[i].first, sources[i].second};
    };
  };
  for (size_t i = 0; i < sources.size(); ++i) {
    compiler.start({static_cast<int64_t>(i)}, source(i));
  }
  nb::list codes;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& kernel = compiler.get({static_cast<int64_t>(i)}, source(i));
    codes.append(as_bytes(kernel.code));
  }
  return nb::make_tuple(codes, describe(compiler.counts()));
}

void bind_compiler(nb::module_& m) {
  m.def(
      "cuda_compile",
      compile,
      "library"_a,
      "architecture"_a,
      "sources"_a,
      nb::kw_only(),
      "folder"_a = "",
      "shipped"_a = "",
      "nvfatbin"_a = "",
      "driver"_a = 13000,
      "The codes of sources (function, text) for a device of an architecture such "
      "as 90 and a driver of CUDA 13.0, and the counts: from the folder of shipped "
      "kernels, from the user's, or compiled at the same time by the NVRTC of a "
      "library.");
  m.def(
      "ship_kernel",
      [](const std::string& library,
         const std::string& nvfatbin,
         int architecture,
         const std::string& function,
         const std::string& text,
         const std::string& folder) {
        nb::gil_scoped_release release;
        cuda::Toolchain toolchain(
            {library, nvfatbin}, {architecture, cuda::Fatbin::least_driver});
        return cuda::Shipped(folder).add({function, text}, toolchain);
      },
      "library"_a,
      "nvfatbin"_a,
      "architecture"_a,
      "function"_a,
      "text"_a,
      "folder"_a,
      "Compiles a kernel for an architecture and puts it into a folder of shipped "
      "kernels; returns its size.");
  m.def(
      "cuda_architecture",
      [] { return cuda::describe(0).architecture; },
      "The first GPU's, such as 90.");
  m.def(
      "cuda_compilations",
      [] { return describe(compilations()); },
      "Kernels that this process has had from the package, has loaded from the "
      "user's folder, has compiled, and has left to MLX; the last error.");
}

void bind_cache(nb::module_& m) {
  m.def(
      "load_from_cache",
      [](const std::string& folder, const nb::bytes& key) -> nb::object {
        auto found = cuda::DiskCache(folder, 0).load(as_string(key));
        return found ? nb::object(as_bytes(*found)) : nb::none();
      },
      "folder"_a,
      "key"_a,
      "What is stored in a folder under a key, or None.");
  m.def(
      "store_in_cache",
      [](const std::string& folder,
         const nb::bytes& key,
         const nb::bytes& value,
         int64_t max_bytes) {
        return cuda::DiskCache(folder, max_bytes)
            .store(as_string(key), as_string(value));
      },
      "folder"_a,
      "key"_a,
      "value"_a,
      "max_bytes"_a,
      "Whether the value has been stored.");
  m.def(
      "shipped_folder",
      cuda::shipped_folder,
      "Where the package's compiled kernels are.");
  m.def(
      "cache_folder",
      cuda::cache_folder,
      "Where compiled kernels are kept; empty if nowhere.");
}

} // namespace

void bind_cuda(nb::module_& m) {
  bind_texts(m);
  bind_compiler(m);
  bind_cache(m);
}

} // namespace mlx_ctc::gpu
