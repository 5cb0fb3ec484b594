#include "cuda/shipped.h"

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>

#include "cuda/fatbin.h"
#include "cuda/library.h"

namespace mlx_ctc::cuda {

namespace {

constexpr int64_t max_bytes = std::numeric_limits<int64_t>::max();

std::string key_of(const std::string& function, int cuda, Architecture target) {
  return "CUDA " + std::to_string(cuda) + " sm_" + std::to_string(target) +
      " " + Toolchain::language + " " + function;
}

bool is_fatbin(const std::string& code) {
  return code.starts_with("\x50\xed\x55\xba"); // 0xBA55ED50, little-endian
}

} // namespace

Shipped::Shipped(std::string folder)
    : files_(std::move(folder), max_bytes, DiskCache::Owner::any) {}

std::optional<std::string> Shipped::load(
    const std::string& function,
    Device device) const {
  constexpr int oldest_cuda = 12;
  if (device.driver < Fatbin::least_driver) {
    return std::nullopt;
  }
  // A driver loads the code of its own CUDA and of older ones.
  for (int cuda = device.driver / 1000; cuda >= oldest_cuda; --cuda) {
    int oldest = device.architecture / 10 * 10;
    for (int target = device.architecture; target >= oldest; --target) {
      if (auto found = files_.load(key_of(function, cuda, target))) {
        return found;
      }
    }
  }
  return std::nullopt;
}

size_t Shipped::add(const Source& source, const Toolchain& toolchain) const {
  auto code = toolchain.compile(source);
  if (!is_fatbin(code)) {
    throw std::runtime_error(
        source.function + ": expected compressed code from " +
        toolchain.description());
  }
  auto key = key_of(source.function, toolchain.cuda(), toolchain.target());
  if (!files_.store(key, code)) {
    throw std::runtime_error(source.function + ": cannot be written");
  }
  return code.size();
}

std::string shipped_folder() {
  if (auto named = named_folder("MLX_CTC_KERNELS")) {
    return *named;
  }
  auto library = file_of(&shipped_folder);
  auto end = library.find_last_of('/');
  return end == library.npos ? "" : library.substr(0, end) + "/kernels";
}

} // namespace mlx_ctc::cuda
