// The Python module mlx_ctc._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "ops/beam_search_bindings.h"
#include "ops/cpu/task.h"
#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/forced_align.h"
#include "ops/gpu/bindings.h"
#include "ops/greedy_decode.h"
#include "ops/integers.h"

namespace mx = mlx::core;
namespace nb = nanobind;
using namespace nb::literals;

namespace {

// A loss on the CPU that is traced will have a gradient as large as log_probs.
mx::array ctc_loss(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const mlx_ctc::Options& options,
    mx::StreamOrDevice s) {
  if (log_probs.is_tracer() && mx::to_stream(s).device == mx::Device::cpu) {
    nb::gil_scoped_release release; // MLX may wait for its streams
    mlx_ctc::cpu::keep_freed(log_probs.nbytes());
  }
  return mlx_ctc::ctc_loss(
      log_probs, targets, input_lengths, target_lengths, options, s);
}

// The function of an op with its options, a blank and flags, as arguments.
template <typename Options, typename... Flags, typename Result>
auto with_options(Result (*op)(
    const mx::array&,
    const mx::array&,
    const mx::array&,
    const mx::array&,
    const Options&,
    mx::StreamOrDevice)) {
  return [op](
             const mx::array& log_probs,
             const mx::array& targets,
             const mx::array& input_lengths,
             const mx::array& target_lengths,
             int blank,
             Flags... flags,
             mx::StreamOrDevice stream) {
    return op(
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        {blank, flags...},
        stream);
  };
}

// False for arguments that are not arrays, or a blank that is not an int.
bool is_plain_batch(
    const std::string& op,
    nb::handle log_probs,
    nb::handle targets,
    nb::handle input_lengths,
    nb::handle target_lengths,
    nb::handle blank) {
  mx::array* arrays[4] = {};
  int i = 0;
  for (auto handle : {log_probs, targets, input_lengths, target_lengths}) {
    if (!nb::isinstance<mx::array>(handle)) {
      return false;
    }
    arrays[i++] = nb::inst_ptr<mx::array>(handle);
  }
  int64_t number = 0;
  return PyLong_CheckExact(blank.ptr()) && nb::try_cast(blank, number) &&
      mlx_ctc::is_plain_batch(
             op, *arrays[0], *arrays[1], *arrays[2], *arrays[3], number);
}

// The ops that take targets.
void bind_target_ops(nb::module_& m) {
  auto define = [&](const char* name,
                    auto function,
                    const char* doc,
                    const auto&... flags) {
    m.def(
        name,
        function,
        "log_probs"_a,
        "targets"_a,
        "input_lengths"_a,
        "target_lengths"_a,
        "blank"_a,
        nb::kw_only(),
        flags...,
        "stream"_a = nb::none(),
        doc);
  };

  define(
      "ctc_loss",
      with_options<mlx_ctc::Options, bool, bool, bool>(ctc_loss),
      "The loss (N,) of log_probs (T, N, C), targets (N, S) and lengths (N,), "
      "the last three int32.",
      "with_logits"_a,
      "zero_infinity"_a,
      "normalized"_a);
  define(
      "forced_align",
      with_options<mlx_ctc::AlignOptions, bool, int>(mlx_ctc::forced_align),
      "Alignments (N, T) and scores (N, T) of what ctc_loss takes. "
      "segment_frames: between two checkpoints on the CPU, on which the result "
      "does not depend; 0: as many as suit the shapes.",
      "with_logits"_a,
      "segment_frames"_a = 0);
  define(
      "ctc_posteriors",
      with_options<mlx_ctc::PosteriorOptions, bool, bool>(
          mlx_ctc::ctc_posteriors),
      "Posteriors (N, T, S + 1) or (N, T, C) of what ctc_loss takes.",
      "with_logits"_a,
      "by_class"_a);
}

void bind_greedy_decode(nb::module_& m) {
  m.def(
      "greedy_decode",
      [](const mx::array& log_probs,
         const mx::array& input_lengths,
         int blank,
         bool with_logits,
         mx::StreamOrDevice stream) {
        return mlx_ctc::greedy_decode(
            log_probs, input_lengths, {blank, with_logits}, stream);
      },
      "log_probs"_a,
      "input_lengths"_a,
      "blank"_a,
      nb::kw_only(),
      "with_logits"_a,
      "stream"_a = nb::none(),
      "Labels (N, T), their numbers (N), scores (N), frames (N, T) and "
      "probabilities (N, T) of log_probs (T, N, C) and lengths (N,), int32, on "
      "the CPU.");
  m.def(
      "greedy_decode_at_once",
      mlx_ctc::greedy_decode_at_once,
      "log_probs"_a,
      "frames"_a.none(),
      "blank"_a,
      nb::kw_only(),
      "with_logits"_a,
      "batch_first"_a,
      "The same of few known scores (T, N, C), (N, T, C) or (T, C), evaluated; "
      "else None.");
}

void bind_checks(nb::module_& m) {
  m.def(
      "is_known",
      mlx_ctc::is_known,
      "Whether an array's values can be read without an evaluation.");
  m.def(
      "is_plain_batch",
      is_plain_batch,
      "op"_a,
      "log_probs"_a.none(),
      "targets"_a.none(),
      "input_lengths"_a.none(),
      "target_lengths"_a.none(),
      "blank"_a.none(),
      "Whether a batch is written as the ops take it; known values that are out "
      "of range are refused.");
  m.def(
      "check_lengths",
      mlx_ctc::check_lengths,
      "op"_a,
      "name"_a,
      "lengths"_a,
      "most"_a,
      "Refuses known lengths (N,) out of [0, most].");
  m.def(
      "check_labels",
      mlx_ctc::check_labels,
      "op"_a,
      "targets"_a,
      "lengths"_a,
      "C"_a,
      "excluded"_a,
      "Refuses known targets (N, S) with a label out of [0, C), or `excluded`.");
  m.def(
      "check_fit",
      mlx_ctc::check_fit,
      "op"_a,
      "targets"_a,
      "targets_are_known"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      "Refuses a target that needs more frames than its sequence has.");
}

// What brings the forms of targets and lengths to one (_arguments.py).
void bind_forms(nb::module_& m) {
  m.def(
      "pad_targets",
      mlx_ctc::pad_targets,
      "op"_a,
      "targets"_a,
      "targets_are_known"_a,
      "lengths"_a,
      "stream"_a = nb::none(),
      "Concatenated targets (sum(lengths),) as rows (N, S).");
  m.def(
      "mask_lengths",
      mlx_ctc::mask_lengths,
      "op"_a,
      "name"_a,
      "mask"_a,
      "The ones that each row of a known mask (N, W) begins with, (N,). "
      "Refuses ones after a zero.");
  m.def(
      "label_lengths",
      mlx_ctc::label_lengths,
      "op"_a,
      "targets"_a,
      "blank"_a,
      "The labels that each row of known targets (N, S) begins with, (N,). "
      "Refuses labels after padding: a negative number or the blank.");
  m.def(
      "to_int32",
      mlx_ctc::to_int32,
      "a"_a,
      "A known array in 32 bits, saturated.");
}

} // namespace

NB_MODULE(_ext, m) {
  m.doc() = "The ops behind mlx_ctc.";
  bind_target_ops(m);
  bind_greedy_decode(m);
  bind_checks(m);
  bind_forms(m);
  mlx_ctc::bind_beam_search(m);
  mlx_ctc::gpu::bind_launches(m);
  mlx_ctc::gpu::bind_cuda(m);
}
