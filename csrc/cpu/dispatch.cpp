// Chooses the instruction set: the same kernels are compiled for several, and
// the machine that runs them decides.
#include "cpu/sequence.h"

namespace mlx_ctc::cpu {

namespace baseline {
extern const Kernels table[];
}

#ifdef MLX_CTC_X86_64_LEVELS
namespace x86_64_v3 { // AVX2 and FMA
extern const Kernels table[];
}
namespace x86_64_v4 { // AVX-512
extern const Kernels table[];
}
#endif

namespace {

const Kernels* best_table() {
#ifdef MLX_CTC_X86_64_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) {
    return x86_64_v4::table;
  }
  if (__builtin_cpu_supports("x86-64-v3")) {
    return x86_64_v3::table;
  }
#endif
  return baseline::table;
}

} // namespace

const Kernels& kernels(Element element) {
  static const Kernels* table = best_table();
  return table[static_cast<int>(element)];
}

} // namespace mlx_ctc::cpu
