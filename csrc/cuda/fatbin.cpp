#include "cuda/fatbin.h"

#include <array>
#include <memory>
#include <stdexcept>

#include "cuda/library.h"

namespace mlx_ctc::cuda {

Fatbin::Fatbin(const std::string& path) {
  Library library(path);
  library.find("nvFatbinVersion", get_version_);
  library.find("nvFatbinGetErrorString", error_string_);
  library.find("nvFatbinCreate", create_);
  library.find("nvFatbinDestroy", destroy_);
  library.find("nvFatbinAddCubin", add_cubin_);
  library.find("nvFatbinSize", size_);
  library.find("nvFatbinGet", get_);
}

void Fatbin::check(const char* what, int status) const {
  if (status != 0) {
    throw std::runtime_error(std::string(what) + ": " + error_string_(status));
  }
}

std::string Fatbin::version() const {
  unsigned major;
  unsigned minor;
  check("nvFatbinVersion", get_version_(&major, &minor));
  return std::to_string(major) + "." + std::to_string(minor);
}

std::string Fatbin::compress(const std::string& cubin, Architecture target)
    const {
  std::array options = {
      "-64", "-cuda", "-compress=true", "-compress-mode=size"};
  std::lock_guard lock(mutex_);
  Handle created;
  check("nvFatbinCreate", create_(&created, options.data(), options.size()));
  auto destroy = [this](Handle* handle) { destroy_(handle); };
  std::unique_ptr<Handle, decltype(destroy)> handle(&created, destroy);
  check(
      "nvFatbinAddCubin",
      add_cubin_(
          created,
          cubin.data(),
          cubin.size(),
          std::to_string(target).c_str(),
          "kernel"));
  size_t size;
  check("nvFatbinSize", size_(created, &size));
  std::string code(size, '\0');
  check("nvFatbinGet", get_(created, code.data()));
  return code;
}

} // namespace mlx_ctc::cuda
