#include "ops/beam_search_bindings.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "decoder/beam_search.h"
#include "decoder/validity.h"
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

// Whether Python's current error says that a value is no number, or none that
// a double holds. Any other error was raised by the value's own
// __float__, and is passed on.
bool is_no_number() {
  for (PyObject* type :
       {PyExc_TypeError, PyExc_ValueError, PyExc_OverflowError}) {
    if (PyErr_ExceptionMatches(type) != 0) {
      return true;
    }
  }
  return false;
}

double score_of(
    const nb::object& returned,
    const nb::object& prefix,
    const nb::object& label) {
  double score = PyFloat_AsDouble(returned.ptr());
  std::optional<nb::python_error> cause;
  if (PyErr_Occurred() != nullptr) {
    if (!is_no_number()) {
      throw nb::python_error();
    }
    cause.emplace();
  } else if (score < std::numeric_limits<double>::infinity()) {
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
  message += '.';
  if (cause) {
    nb::raise_from(*cause, PyExc_ValueError, "%s", message.c_str());
  }
  throw nb::value_error(message.c_str());
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

// A Python function of a prefix, which returns a NumPy array (C) of doubles.
PrefixScorer prefix_scorer_from(const nb::object& function) {
  if (function.is_none()) {
    return nullptr;
  }
  return [function](const Labels& labels) {
    check_signals();
    using Row = nb::ndarray<const double, nb::ndim<1>, nb::c_contig>;
    auto row = nb::cast<Row>(function(nb::tuple(nb::cast(labels))));
    return std::vector<double>(row.data(), row.data() + row.size());
  };
}

// log_probs (T, N, C), evaluated, with the classes of a frame side by side.
Scores scores_of(const mx::array& log_probs) {
  return {
      log_probs.data<void>(),
      log_probs.dtype() == mx::float64,
      log_probs.shape(2),
      log_probs.strides(0),
      log_probs.strides(1)};
}

// Labels, score, and the frame and the probability of each label.
using Found = std::tuple<Labels, double, std::vector<int>, std::vector<double>>;

// So little is searched in the time between two looks for signals.
bool is_quick(const mx::array& log_probs, int beam_width) {
  double work = double(log_probs.size()) +
      double(log_probs.shape(0)) * log_probs.shape(1) * beam_width;
  return work < 1e5;
}

std::vector<std::vector<Found>> as_tuples(
    std::vector<std::vector<Hypothesis>>& results) {
  std::vector<std::vector<Found>> found(results.size());
  for (size_t n = 0; n < results.size(); ++n) {
    for (auto& [labels, score, times] : results[n]) {
      found[n].emplace_back(
          std::move(labels),
          score,
          std::move(times.frames),
          std::move(times.probabilities));
    }
  }
  return found;
}

std::vector<std::vector<Found>> decode(
    const mx::array& log_probs,
    const std::vector<int>& lengths,
    int beam_width,
    int blank,
    int nbest,
    int max_labels,
    double label_threshold,
    double beam_threshold,
    bool rescore,
    const nb::object& scorer,
    const nb::object& prefix_scorer,
    const std::vector<std::pair<Labels, double>>& hotwords) {
  const BeamOptions options = {
      beam_width,
      blank,
      nbest,
      max_labels,
      label_threshold,
      beam_threshold,
      rescore};
  Scorers scorers;
  scorers.scorer = scorer_from(scorer);
  scorers.prefix_scorer = prefix_scorer_from(prefix_scorer);
  std::optional<Hotwords> automaton;
  if (!hotwords.empty()) {
    automaton.emplace(hotwords, log_probs.shape(2));
  }
  std::atomic<bool> stop = false;
  std::vector<std::vector<Hypothesis>> results;
  auto search = [&] {
    results = beam_search(
        scores_of(log_probs),
        lengths,
        options,
        scorers,
        automaton ? &*automaton : nullptr,
        stop);
  };
  if (scorers) {
    search();
  } else if (is_quick(log_probs, beam_width)) {
    nb::gil_scoped_release release;
    search();
  } else {
    run_interruptibly(search, stop);
  }

  return as_tuples(results);
}

// A log-probability is at most 0, but for an error of rounding.
void check_log_probs(
    const mx::array& log_probs,
    const std::vector<int>& lengths,
    double most) {
  std::optional<Position> position;
  {
    nb::gil_scoped_release release;
    position = find_above(most, scores_of(log_probs), lengths);
  }
  if (!position) {
    return;
  }
  std::string message =
      "[beam_search_decode] Expected log_probs of at most 0 but got ";
  message += nb::repr(nb::cast(position->value)).c_str();
  message += " in frame " + std::to_string(position->frame) + " of sequence " +
      std::to_string(position->sequence) + ", class " +
      std::to_string(position->label) +
      ". For probabilities pass mx.log(probs); for logits, with_logits=True.";
  throw nb::value_error(message.c_str());
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
      "(T, N, C), which is evaluated, contiguous and float32 or float64.");
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
      "rescore"_a,
      "scorer"_a = nb::none(),
      "prefix_scorer"_a = nb::none(),
      "hotwords"_a,
      "The best of each sequence of log_probs (T, N, C), which is evaluated, "
      "contiguous and float32 or float64: labels, score, and the frame and the "
      "probability of each label.");
}

} // namespace mlx_ctc
