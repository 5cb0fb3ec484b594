#include "ops/cpu/task.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <mutex>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "mlx/allocator.h"
#include "mlx/memory.h"
#include "mlx/utils.h"

namespace mlx_ctc::cpu {

namespace {

constexpr uintptr_t huge_page = 2 << 20;

// How much freed memory MLX's CPU allocator keeps, unless it is told otherwise.
constexpr size_t kept_bytes = 32 << 20;

struct Range {
  uintptr_t begin;
  uintptr_t end;
};

[[maybe_unused]] Range range_of(mx::array& a) {
  auto begin = reinterpret_cast<uintptr_t>(a.data<char>());
  return {begin, begin + a.nbytes()};
}

} // namespace

// Large fresh memory comes in huge pages where the system has them: a fault for
// each small one would take as long as the loss.
void allocate(mx::array& output, size_t more) {
  output.set_data(mx::allocator::malloc(output.nbytes() + more));
#ifdef MADV_HUGEPAGE
  auto [begin, end] = range_of(output);
  auto first = (begin + huge_page - 1) / huge_page * huge_page;
  auto last = end / huge_page * huge_page;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

void leave_empty(mx::array& output) {
  output.set_data(
      mx::allocator::malloc(0), 0, output.strides(), output.flags());
}

void keep_freed(size_t bytes) {
  static std::mutex mutex;
  static size_t limit = kept_bytes; // as far as we know
  static bool is_ours = true;
  if (bytes < kept_bytes) {
    return;
  }
  std::lock_guard lock(mutex);
  size_t wanted = kept_bytes + bytes;
  if (!is_ours || wanted <= limit) {
    return;
  }
  // There is no function that only reads the limit, and a lower one would free
  // what is kept. So a limit that another thread sets between these two calls
  // is lost: MLX has none that compares and sets at once.
  size_t found = mx::set_cache_limit(std::numeric_limits<size_t>::max());
  is_ours = found == limit;
  limit = is_ours ? wanted : found;
  mx::set_cache_limit(limit);
}

void fetch_pages([[maybe_unused]] mx::array& output) {
#ifdef MADV_POPULATE_WRITE
  if (output.nbytes() < kept_bytes) {
    return;
  }
  static const uintptr_t small_page = sysconf(_SC_PAGESIZE);
  auto [begin, end] = range_of(output);
  auto first = begin / huge_page;
  auto count = (end - 1) / huge_page - first + 1;
  parallel_for(count, max_threads(), [&](int64_t i, int) {
    auto from =
        std::max(begin / small_page * small_page, (first + i) * huge_page);
    auto to = std::min(end, (first + i + 1) * huge_page);
    madvise(reinterpret_cast<void*>(from), to - from, MADV_POPULATE_WRITE);
  });
#endif
}

void fill_with_nan(mx::Dtype dtype, char* begin, int64_t count) {
  switch (dtype) {
    case mx::float64:
      std::fill_n(
          reinterpret_cast<double*>(begin),
          count,
          std::numeric_limits<double>::quiet_NaN());
      break;
    case mx::float32:
      std::fill_n(
          reinterpret_cast<float*>(begin),
          count,
          std::numeric_limits<float>::quiet_NaN());
      break;
    case mx::float16:
    case mx::bfloat16: {
      constexpr uint16_t nan = 0x7fc0; // in both
      std::fill_n(reinterpret_cast<uint16_t*>(begin), count, nan);
      break;
    }
    default:
      throw std::logic_error("[mlx_ctc] This type has no NaN.");
  }
}

void fill_failed(std::vector<mx::array>& outputs, int blank) noexcept {
  auto report = [](const char* reason) {
    std::fprintf(
        stderr,
        "[mlx_ctc] A CPU task failed: %s. Its results are NaN.\n",
        reason);
  };
  try {
    throw;
  } catch (const std::exception& error) {
    report(error.what());
  } catch (...) {
    report("unknown exception");
  }
  for (auto& out : outputs) {
    if (mx::issubdtype(out.dtype(), mx::floating)) {
      fill_with_nan(out.dtype(), out.data<char>(), out.data_size());
    } else {
      std::fill_n(out.data<char>(), out.nbytes(), 0);
    }
  }
  if (outputs[0].dtype() == mx::int32) {
    std::fill_n(outputs[0].data<int32_t>(), outputs[0].size(), blank);
  }
}

std::vector<mx::array> weak_copies(const std::vector<mx::array>& arrays) {
  std::vector<mx::array> copies;
  copies.reserve(arrays.size());
  for (const auto& a : arrays) {
    copies.push_back(mx::array::unsafe_weak_copy(a));
  }
  return copies;
}

} // namespace mlx_ctc::cpu
