#include "cpu/task.h"

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "mlx/allocator.h"

namespace mlx_ctc::cpu {

namespace {

constexpr uintptr_t huge_page = 2 << 20;

// MLX keeps less than this to be used again: more is always fresh.
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
void allocate(mx::array& output) {
  output.set_data(mx::allocator::malloc(output.nbytes()));
#ifdef MADV_HUGEPAGE
  auto [begin, end] = range_of(output);
  auto first = (begin + huge_page - 1) / huge_page * huge_page;
  auto last = end / huge_page * huge_page;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

void fetch_pages([[maybe_unused]] mx::array& output) {
#ifdef MADV_POPULATE_WRITE
  if (output.nbytes() < kept_bytes) {
    return;
  }
  constexpr uintptr_t small_page = 4096;
  auto [begin, end] = range_of(output);
  auto first = begin / huge_page;
  auto count = (end - 1) / huge_page - first + 1;
  parallel_for(count, [&](int64_t i, int) {
    auto from =
        std::max(begin / small_page * small_page, (first + i) * huge_page);
    auto to = std::min(end, (first + i + 1) * huge_page);
    madvise(reinterpret_cast<void*>(from), to - from, MADV_POPULATE_WRITE);
  });
#endif
}

std::vector<mx::array> weak_copies(const std::vector<mx::array>& arrays) {
  std::vector<mx::array> copies;
  for (const auto& a : arrays) {
    copies.push_back(mx::array::unsafe_weak_copy(a));
  }
  return copies;
}

} // namespace mlx_ctc::cpu
