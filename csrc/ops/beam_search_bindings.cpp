#include "ops/beam_search_bindings.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "decoder/beam_search.h"
#include "mlx/array.h"

namespace mx = mlx::core;
namespace nb = nanobind;
using namespace nb::literals;

namespace mlx_ctc {

namespace {

// Time between two looks for signals.
constexpr auto signal_interval = std::chrono::milliseconds(50);

// The error is that of the signal's handler, such as KeyboardInterrupt.
void check_signals() {
  if (PyErr_CheckSignals() != 0) {
    throw nb::python_error();
  }
}

double score_of(
    const nb::object& returned,
    const nb::object& prefix,
    const nb::object& label) {
  double score = PyFloat_AsDouble(returned.ptr());
  bool is_number = PyErr_Occurred() == nullptr;
  PyErr_Clear();
  if (is_number && score < std::numeric_limits<double>::infinity()) {
    return score;
  }
  std::string message =
      "[beam_search_decode] Expected scorer(prefix, label) to return a finite "
      "number or -inf but got ";
  message += nb::repr(returned).c_str();
  message += " for prefix ";
  message += nb::repr(prefix).c_str();
  message += " and label ";
  message += nb::repr(label).c_str();
  throw nb::value_error((message + ".").c_str());
}

// A Python function of (prefix, label), called with label None at the end.
Scorer scorer_from(const nb::object& function) {
  if (function.is_none()) {
    return nullptr;
  }
  return [function](const std::vector<int>& labels, int last) {
    check_signals();
    nb::tuple prefix(nb::cast(labels));
    nb::object label = last < 0 ? nb::none() : nb::cast(last);
    return score_of(function(prefix, label), prefix, label);
  };
}

// Runs `work` on another thread. This thread, which receives Python's signals,
// polls for them. If a handler raises, `stop` is set and the error is thrown
// after the work has ended.
void run_interruptibly(
    const std::function<void()>& work,
    std::atomic<bool>& stop) {
  std::packaged_task<void()> task(work);
  auto done = task.get_future();
  std::thread thread;
  try {
    thread = std::thread([&task] { task(); });
  } catch (const std::system_error&) { // no thread can be started
    nb::gil_scoped_release release;
    work();
    return;
  }
  std::exception_ptr interruption;
  while (true) {
    {
      nb::gil_scoped_release release;
      if (done.wait_for(signal_interval) == std::future_status::ready) {
        break;
      }
    }
    if (!interruption) {
      try {
        check_signals();
      } catch (...) {
        interruption = std::current_exception();
        stop = true;
      }
    }
  }
  thread.join();
  if (interruption) {
    std::rethrow_exception(interruption);
  }
  done.get();
}

// Lists of (labels, score), of log_probs (N, T, C).
std::vector<std::vector<std::pair<std::vector<int>, double>>> decode(
    const mx::array& log_probs,
    const std::vector<int>& lengths,
    int beam_width,
    int blank,
    int nbest,
    int max_labels,
    double label_threshold,
    double beam_threshold,
    const nb::object& scorer) {
  const BeamOptions options = {
      beam_width, blank, nbest, max_labels, label_threshold, beam_threshold};
  const auto score = scorer_from(scorer);
  std::atomic<bool> stop = false;
  std::vector<std::vector<Hypothesis>> results;
  auto search = [&] {
    results = beam_search(
        log_probs.data<float>(),
        log_probs.shape(1),
        log_probs.shape(2),
        lengths,
        options,
        score,
        stop);
  };
  if (score) {
    search();
  } else {
    run_interruptibly(search, stop);
  }

  std::vector<std::vector<std::pair<std::vector<int>, double>>> pairs;
  for (auto& result : results) {
    auto& of_sequence = pairs.emplace_back();
    for (auto& [labels, score] : result) {
      of_sequence.emplace_back(std::move(labels), score);
    }
  }
  return pairs;
}

// A log-probability is at most 0, but for an error of rounding.
void check_log_probs(
    const mx::array& log_probs,
    const std::vector<int>& lengths,
    float most) {
  auto place = find_above(
      most,
      log_probs.data<float>(),
      log_probs.shape(1),
      log_probs.shape(2),
      lengths);
  if (place) {
    std::string message =
        "[beam_search_decode] Expected log_probs of at most 0 but got ";
    message += nb::repr(nb::cast(place->value)).c_str();
    message += " in frame " + std::to_string(place->frame) + " of sequence " +
        std::to_string(place->sequence) + ", class " +
        std::to_string(place->label) +
        ". For probabilities pass mx.log(probs); for logits, with_logits=True.";
    throw nb::value_error(message.c_str());
  }
}

} // namespace

void bind_beam_search(nb::module_& m) {
  m.def(
      "check_log_probs",
      check_log_probs,
      "log_probs"_a,
      "lengths"_a,
      "most"_a,
      "Refuses a finite value above `most` in the used frames of log_probs "
      "(N, T, C), which is evaluated, contiguous and float32.");
  m.def(
      "beam_search",
      decode,
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
}

} // namespace mlx_ctc
