// Kernels compiled by NVRTC, on threads of their own, and kept on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cuda/disk_cache.h"
#include "cuda/shipped.h"
#include "cuda/toolchain.h"

namespace mlx_ctc::cuda {

struct Kernel {
  std::string function;
  std::string code; // as Toolchain has it; empty if it could not be compiled
};

class Compiler {
 public:
  // Identifies a kernel's text within this process, so that a kernel already
  // compiled is found without generating the text.
  using Key = std::vector<int64_t>;
  using MakeSource = std::function<Source()>;

  struct Counts {
    int shipped = 0; // compiled when the package was built
    int loaded = 0; // from the user's folder
    int compiled = 0;
    int failed = 0;
    std::string error; // the last one
  };

  // Does not throw: where the device or NVRTC is missing, every kernel that
  // needs it fails.
  Compiler(
      Libraries libraries,
      const std::function<Device()>& device,
      Shipped shipped,
      DiskCache cache);

  // Begins with a kernel, unless that has been done.
  void start(const Key& key, const MakeSource& source);

  // Waits for it. The kernel lives as long as the compiler.
  const Kernel& get(const Key& key, const MakeSource& source);

  Counts counts() const;

 private:
  std::shared_future<Kernel> future(const Key& key, const MakeSource& source);
  Kernel kernel(const Source& source);
  std::string code(const Source& source);
  const Toolchain& toolchain(Device device);
  void add(int Counts::* number);
  void fail(const char* error);

  Libraries libraries_;
  std::optional<Device> device_;
  Shipped shipped_;
  DiskCache cache_;
  std::mutex toolchain_mutex_;
  std::unique_ptr<Toolchain> toolchain_; // made when a kernel needs it
  mutable std::mutex mutex_;
  Counts counts_;
  // Last, because its destructor waits for the threads.
  std::map<Key, std::shared_future<Kernel>> kernels_;
};

} // namespace mlx_ctc::cuda
