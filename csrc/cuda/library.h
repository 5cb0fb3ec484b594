// Functions of a shared library that this one does not depend on.
#pragma once

#include <stdexcept>
#include <string>

#include <dlfcn.h>

namespace mlx_ctc::cuda {

// It stays loaded.
class Library {
 public:
  explicit Library(const std::string& path)
      : handle_(dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
    if (handle_ == nullptr) {
      throw std::runtime_error(dlerror());
    }
  }

  // Also those of the libraries that it depends on.
  template <typename Function>
  void find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
    if (function == nullptr) {
      throw std::runtime_error(dlerror());
    }
  }

 private:
  void* handle_;
};

// The file of the library that a function is in; empty if there is none.
template <typename Function>
std::string file_of(Function* function) {
  Dl_info library;
  auto address = reinterpret_cast<const void*>(function);
  return dladdr(address, &library) != 0 ? library.dli_fname : "";
}

} // namespace mlx_ctc::cuda
