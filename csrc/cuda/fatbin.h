// NVIDIA's library for fat binaries, which compresses code that the driver then
// unpacks. Found when it is needed.
#pragma once

#include <mutex>
#include <string>

#include "cuda/device.h"

namespace mlx_ctc::cuda {

class Fatbin {
 public:
  // The driver that unpacks what is compressed for size: of CUDA 12.4.
  static constexpr int least_driver = 12040;

  // Throws if the library's functions are not found.
  explicit Fatbin(const std::string& library);

  std::string version() const;

  // A fat binary of one cubin. Throws if the library refuses it, as that of
  // CUDA 12.4 does, which does not know how to compress for size.
  std::string compress(const std::string& cubin, Architecture target) const;

 private:
  using Handle = void*;

  void check(const char* what, int status) const;

  // NVIDIA does not say that several threads may use it at once.
  mutable std::mutex mutex_;
  int (*get_version_)(unsigned*, unsigned*);
  const char* (*error_string_)(int);
  int (*create_)(Handle*, const char* const* options, size_t count);
  int (*destroy_)(Handle*);
  int (*add_cubin_)(
      Handle,
      const void* code,
      size_t size,
      const char* target,
      const char* name);
  int (*size_)(Handle, size_t*);
  int (*get_)(Handle, void*);
};

} // namespace mlx_ctc::cuda
