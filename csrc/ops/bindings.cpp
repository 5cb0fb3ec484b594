// The Python module mlx_ctc._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "decoder/beam_search.h"
#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/forced_align.h"
#include "ops/gpu/bindings.h"
#include "ops/integers.h"

namespace mx = mlx::core;
namespace nb = nanobind;
using namespace nb::literals;

namespace {

// A Python function of (prefix, label), called with label None at the end.
mlx_ctc::Scorer scorer_from(const nb::object& function) {
  if (function.is_none()) {
    return nullptr;
  }
  return [function](const std::vector<int>& prefix, int label) {
    nb::tuple labels(nb::cast(prefix));
    nb::object last = label < 0 ? nb::none() : nb::cast(label);
    return nb::cast<double>(function(labels, last));
  };
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

} // namespace

NB_MODULE(_ext, m) {
  m.doc() = "The ops behind mlx_ctc.";

  auto define =
      [&](const char* name, auto function, const char* doc, auto... flags) {
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
      with_options<mlx_ctc::Options, bool, bool>(mlx_ctc::ctc_loss),
      "The loss (N,) of log_probs (T, N, C), targets (N, S) and lengths (N,), "
      "the last three int32.",
      "with_logits"_a,
      "zero_infinity"_a);
  define(
      "forced_align",
      with_options<mlx_ctc::AlignOptions, bool>(mlx_ctc::forced_align),
      "Alignments (N, T) and scores (N, T) of what ctc_loss takes.",
      "with_logits"_a);
  define(
      "ctc_posteriors",
      with_options<mlx_ctc::PosteriorOptions, bool, bool>(
          mlx_ctc::ctc_posteriors),
      "Posteriors (N, T, S + 1) or (N, T, C) of what ctc_loss takes.",
      "with_logits"_a,
      "by_class"_a);

  m.def(
      "is_known",
      mlx_ctc::is_known,
      "Whether an array's values can be read without an evaluation.");
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
      "to_int32",
      mlx_ctc::to_int32,
      "a"_a,
      "A known array in 32 bits, saturated.");

  m.def(
      "beam_search",
      [](const mx::array& log_probs,
         const std::vector<int>& lengths,
         int beam_width,
         int blank,
         int nbest,
         int max_labels,
         double label_threshold,
         double beam_threshold,
         const nb::object& scorer) {
        mlx_ctc::BeamOptions options = {
            beam_width,
            blank,
            nbest,
            max_labels,
            label_threshold,
            beam_threshold};
        auto score = scorer_from(scorer);
        std::vector<std::vector<mlx_ctc::Hypothesis>> results;
        auto search = [&] {
          results = mlx_ctc::beam_search(
              log_probs.data<float>(),
              log_probs.shape(1),
              log_probs.shape(2),
              lengths,
              options,
              score);
        };
        if (score) {
          search();
        } else {
          nb::gil_scoped_release release;
          search();
        }
        std::vector<std::vector<std::pair<std::vector<int>, double>>> pairs;
        for (auto& result : results) {
          auto& of_sequence = pairs.emplace_back();
          for (auto& [labels, score] : result) {
            of_sequence.emplace_back(std::move(labels), score);
          }
        }
        return pairs;
      },
      "log_probs"_a,
      "lengths"_a,
      nb::kw_only(),
      "beam_width"_a,
      "blank"_a,
      "nbest"_a,
      "max_labels"_a,
      "label_threshold"_a,
      "beam_threshold"_a,
      "scorer"_a = nb::none(),
      "The best (labels, score) of each sequence of log_probs (N, T, C), which "
      "is evaluated, contiguous and float32.");

  mlx_ctc::gpu::bind_launches(m);
}
