#include "ops/cpu/batch.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include <unistd.h>

namespace mlx_ctc::cpu {

Element element_of(mx::Dtype dtype) {
  switch (dtype) {
    case mx::float16:
      return Element::float16;
    case mx::bfloat16:
      return Element::bfloat16;
    case mx::float32:
      return Element::float32;
    case mx::float64:
      return Element::float64;
    default:
      throw std::logic_error("[mlx_ctc] Scores of this type are not read.");
  }
}

namespace {

size_t physical_memory() {
  static const size_t bytes = [] {
    int64_t pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? pages * size_t(sysconf(_SC_PAGESIZE))
                     : std::numeric_limits<size_t>::max() / 2;
  }();
  return bytes;
}

// As many as are worth waking for `losses` of log_probs and targets.
int threads_for_batch(
    const mx::array& log_probs,
    const mx::array& targets,
    int losses) {
  int64_t N = log_probs.shape(1);
  int64_t frames = log_probs.shape(0) * N;
  int64_t nanoseconds = 25 + targets.shape(1) / 2 + log_probs.shape(2) / 4;
  return std::min<int64_t>(
      threads_for(losses * frames * nanoseconds), std::max<int64_t>(N, 1));
}

} // namespace

std::shared_ptr<Workspaces> Workspaces::on(
    mx::Stream stream,
    const std::string& op,
    size_t bytes,
    const mx::array& log_probs,
    const mx::array& targets,
    int losses) {
  // A child that is forked while this is locked would wait for ever. It would
  // anyway: an evaluation takes mutexes of MLX's allocator and streams next.
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<Workspaces>> queued; // by stream
  std::lock_guard lock(mutex);
  auto& last = queued[stream.index];
  auto shared = last.lock();
  bool fits = shared && shared->bytes_ == whole_cache_lines(bytes) &&
      shared->threads_ == threads_for_batch(log_probs, targets, losses);
  if (!fits) {
    last = shared =
        std::make_shared<Workspaces>(op, bytes, log_probs, targets, losses);
  }
  return shared;
}

Workspaces::Workspaces(
    const std::string& op,
    size_t bytes,
    const mx::array& log_probs,
    const mx::array& targets,
    int losses)
    : bytes_(whole_cache_lines(bytes)) {
  int T = log_probs.shape(0);
  int S = targets.shape(1);
  for (int number : {threads_for_batch(log_probs, targets, losses), 1}) {
    // Memory that the system promises is not always there: no more is asked for
    // than the machine has.
    if (bytes_ <= physical_memory() / number) {
      memory_.reset(new (std::nothrow) std::byte[number * bytes_ + cache_line]);
    }
    if (memory_) {
      threads_ = number;
      return;
    }
  }
  throw std::runtime_error(
      "[" + op + "] Unable to allocate " + std::to_string(bytes) +
      " bytes for T = " + std::to_string(T) +
      " frames and S = " + std::to_string(S) + " labels.");
}

Batch::Batch(
    const std::vector<mx::array>& inputs,
    int blank,
    bool with_logits,
    bool blank_is_label)
    : T(inputs[0].shape(0)),
      N(inputs[0].shape(1)),
      C(inputs[0].shape(2)),
      S(inputs[1].shape(1)),
      element(element_of(inputs[0].dtype())),
      log_probs_(inputs[0]),
      blank_(blank),
      with_logits_(with_logits),
      is_valid_(N),
      input_lengths_(N),
      target_lengths_(N),
      labels_(int64_t(N) * S) {
  read_lengths(inputs[2], inputs[3]);
  read_labels(inputs[1], blank_is_label);
}

Sequence Batch::sequence(int n) const {
  auto strides = log_probs_.strides();
  return {
      log_probs_.data<char>() + n * strides[1] * int64_t(log_probs_.itemsize()),
      strides[0],
      strides[2],
      input_lengths_[n],
      C,
      labels_.data() + int64_t(n) * S,
      target_lengths_[n],
      blank_,
      with_logits_};
}

void Batch::read_lengths(const mx::array& input, const mx::array& target) {
  const int32_t* frames = input.data<int32_t>();
  const int32_t* labels = target.data<int32_t>();
  for (int n = 0; n < N; ++n) {
    int32_t T_n = frames[n * input.strides(0)];
    int32_t S_n = labels[n * target.strides(0)];
    is_valid_[n] = T_n >= 0 && T_n <= T && S_n >= 0 && S_n <= S;
    input_lengths_[n] = is_valid_[n] ? T_n : 0;
    target_lengths_[n] = is_valid_[n] ? S_n : 0;
  }
}

// Only the first target_length labels of a row are read.
void Batch::read_labels(const mx::array& targets, bool blank_is_label) {
  const int32_t* values = targets.data<int32_t>();
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t s = 0; s < target_lengths_[n]; ++s) {
      int32_t label = values[n * targets.strides(0) + s * targets.strides(1)];
      bool is_label = label >= 0 && label < C;
      is_label &= blank_is_label || label != blank_;
      if (!is_label) {
        is_valid_[n] = false;
        input_lengths_[n] = 0;
        target_lengths_[n] = 0;
        break;
      }
      labels_[n * S + s] = label;
    }
  }
}

Batch::Order::Order(const Batch& batch, int threads) : sequences(batch.N) {
  // What a sequence costs: its frames, and what it costs without any.
  auto cost = [&](int n) { return int64_t(batch.input_lengths_[n]) + 16; };
  int64_t total = 0, greatest = 0;
  for (int n = 0; n < batch.N; ++n) {
    sequences[n] = n;
    total += cost(n);
    greatest = std::max(greatest, cost(n));
  }
  // Sequences side by side are taken one after the other, unless a thread could
  // work on a long one alone at the end, for a good part of its time.
  constexpr int64_t part = 16;
  if (part * threads * greatest > total && threads > 1) {
    std::ranges::stable_sort(sequences, std::greater(), cost);
  }
  std::vector<int64_t> costs(batch.N);
  std::ranges::transform(sequences, costs.begin(), cost);
  shares = cpu::shares(costs, threads);
}

void Batch::fetch_first_scores(int n) const {
  constexpr int64_t most_frames = 16, most_bytes = 512; // of a frame
  Sequence next = sequence(n);
  int64_t item = log_probs_.itemsize();
  int64_t bytes = std::min<int64_t>(C * next.class_stride * item, most_bytes);
  auto* frame = static_cast<const char*>(next.log_probs);
  for (int t = 0; t < std::min<int64_t>(next.frames, most_frames); ++t) {
    for (int64_t i = 0; i < bytes; i += cache_line) {
      __builtin_prefetch(frame + i);
    }
    __builtin_prefetch(frame + bytes - 1);
    frame += next.frame_stride * item;
  }
}

} // namespace mlx_ctc::cpu
