#include "decoder/labelling.h"

#include <algorithm>
#include <cmath>

#include "lattice/best_path.h"
#include "lattice/viterbi.h"

namespace mlx_ctc {

namespace {

// The first frame and the mean probability of each label of a path, which has
// blanks as 0.
Times times_of(
    const std::vector<int32_t>& path,
    const std::vector<double>& log_probs) {
  Times times;
  cpu::for_each_run(path.data(), path.size(), [&](int begin, int end) {
    if (path[begin] == 0) {
      return;
    }
    double sum = 0;
    for (int t = begin; t < end; ++t) {
      sum += std::exp(log_probs[t]);
    }
    times.frames.push_back(begin);
    times.probabilities.push_back(sum / (end - begin));
  });
  return times;
}

} // namespace

template <typename Real>
double Rescorer<Real>::log_probability(const Labels& labels) {
  Labels columns = columns_of(labels);
  int S = labels.size();
  int segment_frames =
      std::max<int64_t>(64, cpu::square_root_segment(frames_.T));
  int64_t states = 2 * int64_t(S + 1) * (frames_.T / segment_frames + 1);
  saved_.resize(2 * states);
  cpu::Saved saved = {
      .normalisers = nullptr, // of logits alone
      .mantissas = saved_.data(),
      .exponents = saved_.data() + states,
      .pitch = S + 1,
      .segment_frames = segment_frames};
  auto of = sequence(columns);
  auto& kernels = cpu::kernels(cpu::Element::float64);
  size_t bytes = kernels.workspace_bytes(
      of.classes, S, std::min(segment_frames, std::max(frames_.T, 1)));
  return -kernels.loss(of, saved, memory(bytes));
}

template <typename Real>
Times Rescorer<Real>::times(const Labels& labels) {
  Labels columns = columns_of(labels);
  std::vector<int32_t> path(frames_.T);
  std::vector<double> log_probs(frames_.T);
  auto of = sequence(columns);
  auto& kernels = cpu::viterbi(cpu::Element::float64);
  int segment_frames = cpu::viterbi_segment_frames(frames_.T, labels.size());
  size_t bytes = kernels.workspace_bytes(
      frames_.T, of.classes, labels.size(), segment_frames);
  kernels.align(
      of, segment_frames, path.data(), log_probs.data(), memory(bytes));
  return times_of(path, log_probs);
}

template <typename Real>
Labels Rescorer<Real>::columns_of(const Labels& labels) {
  Labels columns;
  columns.reserve(labels.size());
  for (int label : labels) {
    columns.push_back(column_of(label));
  }
  return columns;
}

template <typename Real>
int Rescorer<Real>::column_of(int c) {
  if (column_[c] < 0) {
    column_[c] = columns_++;
    for (int t = 0; t < frames_.T; ++t) {
      table_.push_back(frames_[t][c]);
    }
  }
  return column_[c];
}

template <typename Real>
cpu::Sequence Rescorer<Real>::sequence(const Labels& columns) const {
  cpu::Sequence sequence = {};
  sequence.log_probs = table_.data();
  sequence.frame_stride = 1;
  sequence.class_stride = frames_.T;
  sequence.frames = frames_.T;
  sequence.classes = columns_;
  sequence.labels = columns.data();
  sequence.target_length = columns.size();
  sequence.blank = 0;
  return sequence;
}

template <typename Real>
std::span<std::byte> Rescorer<Real>::memory(size_t bytes) {
  if (bytes > bytes_) {
    memory_ =
        std::make_unique_for_overwrite<std::byte[]>(bytes + cpu::cache_line);
    bytes_ = bytes;
  }
  return cpu::on_cache_line(memory_.get(), bytes);
}

template class Rescorer<float>;
template class Rescorer<double>;

} // namespace mlx_ctc
