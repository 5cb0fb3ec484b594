// The Python module mlx_ctc._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "ctc_loss.h"
#include "forced_align.h"
#include "gpu/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_ext, m) {
  m.doc() = "The ops behind mlx_ctc.";

  m.def(
      "ctc_loss",
      [](const mlx_ctc::mx::array& log_probs,
         const mlx_ctc::mx::array& targets,
         const mlx_ctc::mx::array& input_lengths,
         const mlx_ctc::mx::array& target_lengths,
         int blank,
         bool with_logits,
         bool zero_infinity,
         mlx_ctc::mx::StreamOrDevice stream) {
        return mlx_ctc::ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            {blank, with_logits, zero_infinity},
            stream);
      },
      "log_probs"_a,
      "targets"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      nb::kw_only(),
      "blank"_a,
      "with_logits"_a,
      "zero_infinity"_a,
      "stream"_a = nb::none(),
      "The loss (N,) of log_probs (T, N, C), targets (N, S) and lengths (N,), "
      "the last three int32.");

  m.def(
      "forced_align",
      [](const mlx_ctc::mx::array& log_probs,
         const mlx_ctc::mx::array& targets,
         const mlx_ctc::mx::array& input_lengths,
         const mlx_ctc::mx::array& target_lengths,
         int blank,
         bool with_logits,
         mlx_ctc::mx::StreamOrDevice stream) {
        return mlx_ctc::forced_align(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            {blank, with_logits},
            stream);
      },
      "log_probs"_a,
      "targets"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      nb::kw_only(),
      "blank"_a,
      "with_logits"_a,
      "stream"_a = nb::none(),
      "Alignments (N, T) and scores (N, T) of what ctc_loss takes.");

  mlx_ctc::gpu::bind_launches(m);
}
