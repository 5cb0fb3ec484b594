// The Python module mlx_ctc._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "beam_search.h"
#include "ctc_loss.h"
#include "ctc_posteriors.h"
#include "forced_align.h"
#include "gpu/bindings.h"

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

} // namespace

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

  m.def(
      "ctc_posteriors",
      [](const mlx_ctc::mx::array& log_probs,
         const mlx_ctc::mx::array& targets,
         const mlx_ctc::mx::array& input_lengths,
         const mlx_ctc::mx::array& target_lengths,
         int blank,
         bool with_logits,
         bool by_class,
         mlx_ctc::mx::StreamOrDevice stream) {
        return mlx_ctc::ctc_posteriors(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            {blank, with_logits, by_class},
            stream);
      },
      "log_probs"_a,
      "targets"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      nb::kw_only(),
      "blank"_a,
      "with_logits"_a,
      "by_class"_a,
      "stream"_a = nb::none(),
      "Posteriors (N, T, S + 1) or (N, T, C) of what ctc_loss takes.");

  m.def(
      "beam_search",
      [](const mlx_ctc::mx::array& log_probs,
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
