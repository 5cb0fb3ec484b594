// From a text to code for a device: NVRTC, then nvFatbin where there is one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/fatbin.h"
#include "cuda/nvrtc.h"

namespace mlx_ctc::cuda {

// A text with one kernel function, extern "C".
struct Source {
  std::string function;
  std::string text;
};

struct Libraries {
  std::string nvrtc; // or one that depends on it, such as MLX's
  std::string nvfatbin = ""; // "off" for none; if empty, NVRTC's companion
};

class Toolchain {
 public:
  // What the text is compiled with for any device: it hides the attribute
  // __device__ (cuda_prelude.h).
  static constexpr const char* language = "--device-as-default-execution-space";

  // Throws if NVRTC is not found, or cannot compile for the device.
  Toolchain(const Libraries& libraries, Device device);

  // The major version of its CUDA, and what it compiles for.
  int cuda() const {
    return nvrtc_.version().first;
  }
  Architecture target() const {
    return target_;
  }

  // All that the code depends on besides the text.
  std::string description() const;

  // A cubin, a fat binary with a compressed one, or PTX.
  std::string compile(const Source& source) const;

 private:
  Nvrtc nvrtc_;
  Architecture target_;
  std::vector<std::string> options_;
  std::unique_ptr<Fatbin> fatbin_; // null where it is not used
};

} // namespace mlx_ctc::cuda
