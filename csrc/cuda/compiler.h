// Kernels compiled by NVRTC, on threads of their own, and kept on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/disk_cache.h"
#include "cuda/nvrtc.h"

namespace mlx_ctc::cuda {

// A text with one kernel function, extern "C".
struct Source {
  std::string function;
  std::string text;
};

struct Kernel {
  std::string function;
  std::string code; // a cubin, or PTX; empty if it could not be compiled
};

class Compiler {
 public:
  // Identifies a kernel's text within this process, so that a kernel already
  // compiled is found without generating the text.
  using Key = std::vector<int64_t>;
  using MakeSource = std::function<Source()>;

  struct Counts {
    int compiled = 0;
    int loaded = 0; // from disk
    int failed = 0;
    std::string error; // the last one
  };

  // `library` as Nvrtc takes it, and the device's architecture. Does not throw:
  // where one of them is missing, every kernel fails.
  Compiler(
      const std::string& library,
      const std::function<Architecture()>& device,
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
  void add(int Counts::* number);
  void fail(const char* error);

  std::unique_ptr<Nvrtc> nvrtc_; // null where there is none
  std::vector<std::string> options_;
  DiskCache cache_;
  mutable std::mutex mutex_;
  Counts counts_;
  // Last, because its destructor waits for the threads.
  std::map<Key, std::shared_future<Kernel>> kernels_;
};

} // namespace mlx_ctc::cuda
