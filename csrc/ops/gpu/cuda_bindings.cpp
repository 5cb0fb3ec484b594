// For the tests and benchmarks of the kernels' compilation for CUDA.
#include <array>

#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "gpu/cuda_text.h"
#include "ops/gpu/bindings.h"
#include "ops/gpu/cuda_kernel.h"
#include "ops/gpu/step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlx_ctc::gpu {

namespace {

// The texts of a step's kernels. Those of one name differ in what is compiled.
std::vector<std::pair<std::string, std::string>> texts(const Plan& plan) {
  std::vector<std::pair<std::string, std::string>> result;
  result.reserve(plan.launches.size());
  for (const auto& launch : plan.launches) {
    result.emplace_back(launch.name, cuda_text(launch, launch.name));
  }
  return result;
}

nb::dict describe(const cuda::Compiler::Counts& counts) {
  nb::dict result;
  result["compiled"] = counts.compiled;
  result["loaded"] = counts.loaded;
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
         bool zero_infinity) {
        Problem problem = {
            .T = shape[0],
            .N = shape[1],
            .C = shape[2],
            .S = shape[3],
            .type = type_of(dtype),
            .blank = blank,
            .with_logits = with_logits,
            .zero_infinity = zero_infinity,
            .backend = Backend::cuda};
        nb::dict result;
        result["loss"] = texts(loss_plan(problem));
        result["gradient"] = texts(gradient_plan(problem));
        problem.zero_infinity = false;
        result["align"] = texts(align_plan(problem));
        result["posteriors"] = texts(posteriors_plan(problem));
        problem.by_class = true;
        result["posteriors_by_class"] = texts(posteriors_plan(problem));
        return result;
      },
      "shape"_a,
      "dtype"_a,
      nb::kw_only(),
      "blank"_a = 0,
      "with_logits"_a = true,
      "zero_infinity"_a = false,
      "Of each op the names and the texts that NVRTC would compile for a batch "
      "of shape (T, N, C, S).");
}

// The codes, compiled at the same time, and the counts.
nb::tuple compile(
    const std::string& library,
    int architecture,
    const std::vector<std::pair<std::string, std::string>>& sources,
    const std::string& folder) {
  constexpr int64_t max_bytes = 1 << 30;
  cuda::Compiler compiler(
      library,
      [=] { return architecture; },
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
      "folder"_a = "",
      "The codes of sources (name, text), compiled at the same time by the NVRTC "
      "of a library for an architecture such as 90, and the counts.");
  m.def(
      "cuda_compilations",
      [] { return describe(compilations()); },
      "Kernels that this process has compiled, has loaded from the cache "
      "folder, and has left to MLX; the last error.");
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
