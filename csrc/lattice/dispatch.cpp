// Chooses the instruction set. The recursion is compiled for several; the best
// one that the machine can run is found at the first call.
#include "lattice/best_path.h"
#include "lattice/sequence.h"
#include "lattice/viterbi.h"

#ifdef MLX_CTC_X86_64_LEVELS
#include <cpuid.h>
#endif

namespace mlx_ctc::cpu {

namespace baseline {
extern const Kernels table[];
extern const Viterbi viterbi_table[];
extern const BestPath best_path_table[];
} // namespace baseline

#ifdef MLX_CTC_X86_64_LEVELS
namespace x86_64_v3 { // AVX2 and FMA
extern const Kernels table[];
extern const Viterbi viterbi_table[];
extern const BestPath best_path_table[];
} // namespace x86_64_v3
namespace x86_64_v4 { // AVX-512
extern const Kernels table[];
extern const Viterbi viterbi_table[];
extern const BestPath best_path_table[];
} // namespace x86_64_v4
#endif

namespace {

struct Tables {
  const Kernels* kernels;
  const Viterbi* viterbi;
  const BestPath* best_path;
};

#ifdef MLX_CTC_X86_64_LEVELS
#if defined(__clang__) && __clang_major__ < 18
// This Clang knows features, not levels, nor all the features of level 3.
bool supports_v3() {
  unsigned eax, ebx, ecx, edx;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
      __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_F16C &&
      ecx & bit_MOVBE && __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) &&
      ecx & bit_LZCNT;
}

bool supports_v4() {
  return supports_v3() && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool supports_v3() {
  return __builtin_cpu_supports("x86-64-v3");
}

bool supports_v4() {
  return __builtin_cpu_supports("x86-64-v4");
}
#endif
#endif

Tables best_tables() {
#ifdef MLX_CTC_X86_64_LEVELS
  __builtin_cpu_init();
  if (supports_v4()) {
    return {
        x86_64_v4::table, x86_64_v4::viterbi_table, x86_64_v4::best_path_table};
  }
  if (supports_v3()) {
    return {
        x86_64_v3::table, x86_64_v3::viterbi_table, x86_64_v3::best_path_table};
  }
#endif
  return {baseline::table, baseline::viterbi_table, baseline::best_path_table};
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

const BestPath& best_path(Element element) {
  return tables().best_path[static_cast<int>(element)];
}

} // namespace mlx_ctc::cpu
