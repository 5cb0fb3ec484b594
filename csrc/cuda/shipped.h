// Kernels that were compiled and compressed when the package was built, so that
// a user's machine compiles none of the usual ones.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cuda/device.h"
#include "cuda/disk_cache.h"
#include "cuda/toolchain.h"

namespace mlx_ctc::cuda {

class Shipped {
 public:
  // With an empty folder, or one that does not exist, nothing is found.
  explicit Shipped(std::string folder);

  // The code of a function, whose name has its text's hash, for the device:
  // code for an architecture runs on those of the same major version that are
  // not older. Of several the newest.
  std::optional<std::string> load(const std::string& function, Device device)
      const;

  // Compiles a kernel and adds it. Returns its size. Throws if it cannot be
  // compiled, compressed or written.
  size_t add(const Source& source, const Toolchain& toolchain) const;

 private:
  DiskCache files_;
};

// Where the package has them: beside the library that this is part of. Or
// MLX_CTC_KERNELS, if it is set; empty if it is "off".
std::string shipped_folder();

} // namespace mlx_ctc::cuda
