#include "cuda/nvrtc.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "cuda/library.h"

namespace mlx_ctc::cuda {

Nvrtc::Nvrtc(const std::string& path) {
  Library library(path);
  library.find("nvrtcVersion", get_version_);
  library.find("nvrtcGetErrorString", error_string_);
  library.find("nvrtcGetNumSupportedArchs", count_architectures_);
  library.find("nvrtcGetSupportedArchs", architectures_);
  library.find("nvrtcCreateProgram", create_);
  library.find("nvrtcDestroyProgram", destroy_);
  library.find("nvrtcCompileProgram", compile_);
  library.find("nvrtcGetProgramLogSize", log_size_);
  library.find("nvrtcGetProgramLog", log_);
  library.find("nvrtcGetCUBINSize", cubin_size_);
  library.find("nvrtcGetCUBIN", cubin_);
  library.find("nvrtcGetPTXSize", ptx_size_);
  library.find("nvrtcGetPTX", ptx_);
  check("nvrtcVersion", get_version_(&version_.first, &version_.second));
}

void Nvrtc::check(const char* what, int status) const {
  if (status != 0) {
    throw std::runtime_error(std::string(what) + ": " + error_string_(status));
  }
}

std::string Nvrtc::path() const {
  return file_of(get_version_);
}

std::string Nvrtc::target(Architecture device) const {
  int count;
  check("nvrtcGetNumSupportedArchs", count_architectures_(&count));
  std::vector<Architecture> known(count);
  check("nvrtcGetSupportedArchs", architectures_(known.data()));
  Architecture greatest = 0;
  for (auto architecture : known) {
    if (architecture <= device) {
      greatest = std::max(greatest, architecture);
    }
  }
  if (greatest == 0) {
    throw std::runtime_error(
        "NVRTC has no target for compute capability " + std::to_string(device));
  }
  const char* kind = greatest == device ? "sm_" : "compute_";
  return std::string("--gpu-architecture=") + kind + std::to_string(greatest);
}

std::string Nvrtc::compile(
    const std::string& name,
    const std::string& text,
    const std::vector<std::string>& options) const {
  Program created;
  check(
      "nvrtcCreateProgram",
      create_(
          &created, text.c_str(), (name + ".cu").c_str(), 0, nullptr, nullptr));
  auto destroy = [this](Program* program) { destroy_(program); };
  std::unique_ptr<Program, decltype(destroy)> program(&created, destroy);
  std::vector<const char*> arguments;
  arguments.reserve(options.size());
  for (const auto& option : options) {
    arguments.push_back(option.c_str());
  }
  int status =
      compile_(created, static_cast<int>(arguments.size()), arguments.data());
  if (status != 0) {
    throw std::runtime_error(
        name + ": " + error_string_(status) + "\n" + log(created));
  }
  return code(created);
}

std::string Nvrtc::log(Program program) const {
  size_t size;
  check("nvrtcGetProgramLogSize", log_size_(program, &size));
  std::string log(size, '\0');
  check("nvrtcGetProgramLog", log_(program, log.data()));
  return log.c_str(); // without the zero at the end
}

std::string Nvrtc::code(Program program) const {
  size_t size; // 0 for a target that is PTX
  check("nvrtcGetCUBINSize", cubin_size_(program, &size));
  bool is_cubin = size > 0;
  if (!is_cubin) {
    check("nvrtcGetPTXSize", ptx_size_(program, &size));
  }
  std::string code(size, '\0');
  check(
      is_cubin ? "nvrtcGetCUBIN" : "nvrtcGetPTX",
      (is_cubin ? cubin_ : ptx_)(program, code.data()));
  return code;
}

} // namespace mlx_ctc::cuda
