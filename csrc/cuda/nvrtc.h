// NVIDIA's run-time compiler, found when it is needed.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"

namespace mlx_ctc::cuda {

class Nvrtc {
 public:
  // `library` is NVRTC, or one that depends on it, such as MLX's. Throws if
  // NVRTC's functions are not found.
  explicit Nvrtc(const std::string& library);

  std::pair<int, int> version() const {
    return version_;
  }

  // The file of NVRTC itself.
  std::string path() const;

  // The option that names the target: the device's own instructions if this
  // NVRTC knows them, else PTX of the greatest architecture below it.
  std::string target(Architecture device) const;

  // The code of a text: a cubin, or PTX. Throws with the compiler's messages.
  // May be called by several threads at once.
  std::string compile(
      const std::string& name,
      const std::string& text,
      const std::vector<std::string>& options) const;

 private:
  using Program = void*;

  void check(const char* what, int status) const;
  std::string log(Program program) const;
  std::string code(Program program) const;

  int (*get_version_)(int*, int*);
  const char* (*error_string_)(int);
  int (*count_architectures_)(int*);
  int (*architectures_)(int*);
  int (*create_)(
      Program*,
      const char* text,
      const char* name,
      int headers,
      const char* const*,
      const char* const*);
  int (*destroy_)(Program*);
  int (*compile_)(Program, int options, const char* const*);
  int (*log_size_)(Program, size_t*);
  int (*log_)(Program, char*);
  int (*cubin_size_)(Program, size_t*);
  int (*cubin_)(Program, char*);
  int (*ptx_size_)(Program, size_t*);
  int (*ptx_)(Program, char*);
  std::pair<int, int> version_;
};

} // namespace mlx_ctc::cuda
