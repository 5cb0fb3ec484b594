#include "cuda/toolchain.h"

#include <exception>

namespace mlx_ctc::cuda {

namespace {

// Where the library of the same CUDA is: in a toolkit and in NVIDIA's packages
// for CUDA 13 beside NVRTC, in those for CUDA 12 in a package of its own; else
// where the loader finds it.
std::vector<std::string> companions(const Nvrtc& nvrtc) {
  auto path = nvrtc.path();
  auto folder = path.substr(0, path.find_last_of('/') + 1);
  auto name = "libnvfatbin.so." + std::to_string(nvrtc.version().first);
  return {folder + name, folder + "../../nvfatbin/lib/" + name, name};
}

// Null if there is none: code is as fast without it, only larger.
std::unique_ptr<Fatbin> find_fatbin(
    const std::string& named,
    const Nvrtc& nvrtc) {
  auto paths = named.empty() ? companions(nvrtc) : std::vector{named};
  std::unique_ptr<Fatbin> found;
  for (size_t i = 0; i < paths.size() && found == nullptr; ++i) {
    try {
      found = std::make_unique<Fatbin>(paths[i]);
    } catch (const std::exception&) {
      found = nullptr;
    }
  }
  return found;
}

bool is_cubin(const std::string& code) {
  return code.starts_with(
      "\x7f"
      "ELF");
}

} // namespace

Toolchain::Toolchain(const Libraries& libraries, Device device)
    : nvrtc_(libraries.nvrtc),
      target_(device.architecture),
      options_({nvrtc_.target(target_), language}) {
  if (device.driver >= Fatbin::least_driver) {
    fatbin_ = find_fatbin(libraries.nvfatbin, nvrtc_);
  }
}

std::string Toolchain::description() const {
  auto [major, minor] = nvrtc_.version();
  auto result = "NVRTC " + std::to_string(major) + "." + std::to_string(minor);
  for (const auto& option : options_) {
    result += " " + option;
  }
  return fatbin_ == nullptr ? result
                            : result + ", nvFatbin " + fatbin_->version();
}

std::string Toolchain::compile(const Source& source) const {
  auto code = nvrtc_.compile(source.function, source.text, options_);
  if (fatbin_ == nullptr || !is_cubin(code)) {
    return code;
  }
  try {
    return fatbin_->compress(code, target_);
  } catch (const std::exception&) {
    return code;
  }
}

} // namespace mlx_ctc::cuda
