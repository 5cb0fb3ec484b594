// Chooses the instruction set. The recursion is compiled for several; the best
// one that the machine can run is found at the first call.
#include "lattice/sequence.h"
#include "lattice/viterbi.h"

namespace mlx_ctc::cpu {

namespace baseline {
extern const Kernels table[];
extern const Viterbi viterbi_table[];
} // namespace baseline

#ifdef MLX_CTC_X86_64_LEVELS
namespace x86_64_v3 { // AVX2 and FMA
extern const Kernels table[];
extern const Viterbi viterbi_table[];
} // namespace x86_64_v3
namespace x86_64_v4 { // AVX-512
extern const Kernels table[];
extern const Viterbi viterbi_table[];
} // namespace x86_64_v4
#endif

namespace {

struct Tables {
  const Kernels* kernels;
  const Viterbi* viterbi;
};

Tables best_tables() {
#ifdef MLX_CTC_X86_64_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) {
    return {x86_64_v4::table, x86_64_v4::viterbi_table};
  }
  if (__builtin_cpu_supports("x86-64-v3")) {
    return {x86_64_v3::table, x86_64_v3::viterbi_table};
  }
#endif
  return {baseline::table, baseline::viterbi_table};
}

const Tables& tables() {
  static const Tables best = best_tables();
  return best;
}

} // namespace

const Kernels& kernels(Element element) {
  return tables().kernels[static_cast<int>(element)];
}

const Viterbi& viterbi(Element element) {
  return tables().viterbi[static_cast<int>(element)];
}

} // namespace mlx_ctc::cpu
