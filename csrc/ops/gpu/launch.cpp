#include "ops/gpu/launch.h"

#include <algorithm>

#include "kernel_text.h"

namespace mlx_ctc::gpu {

namespace {

constexpr int simdgroup_width = 32;

// Metal's limit, less what the kernels need besides their tables.
constexpr int threadgroup_bytes = 32768 - 512;

// Labels of a part: their gamma of one frame takes most of a threadgroup's
// memory.
constexpr int part = 6144;

// Of the gradient and the posteriors: more would have to wait for one another.
constexpr int max_gradient_simdgroups = 4;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int power_of_two_up_to(int64_t wanted, int most) {
  int power = 1;
  while (power < wanted && power < most) {
    power *= 2;
  }
  return power;
}

// The greatest power of two that is neither above `wanted` nor `most`; 1 at
// least.
int power_of_two_below(int64_t wanted, int most) {
  int power = 1;
  while (2 * power <= std::min<int64_t>(wanted, most)) {
    power *= 2;
  }
  return power;
}

struct Sizes {
  int T;
  int N;
  int C;
  int S;

  explicit Sizes(const std::vector<mx::array>& inputs)
      : T(inputs[0].shape(0)),
        N(inputs[0].shape(1)),
        C(inputs[0].shape(2)),
        S(inputs[1].shape(1)) {}

  // Windows of 32 pairs of states, a blank and a label each.
  int windows() const {
    return std::max<int>(ceil_div(S, simdgroup_width), 1);
  }
};

// Registers and memory limit what a threadgroup of a scan may have.
int max_scan_windows(Backend backend) {
  return backend == Backend::cuda ? 16 : 8;
}

// Frames between two checkpoints. What surrounds a segment costs as much as 8
// frames of it, so that more are better. But the scan has probabilities of two
// segments in threadgroup memory, and the gradient's of one and a blank's alpha
// in registers.
int frames_of_segment(const Sizes& sizes, Backend backend) {
  return 2 * sizes.windows() <= max_scan_windows(backend) ? 16 : 8;
}

// What every kernel reads, and what the gradient and the posteriors read of
// the kernels before them.
const Names batch = {"log_probs", "targets", "input_lengths", "target_lengths"};
const Names tables = {
    "normalisers",
    "partition",
    "checkpoints",
    "edges",
    "classes",
    "labels",
    "places"};

Names joined(std::initializer_list<Names> parts) {
  Names all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// With the arrays' names. Log-probabilities have no normalisers, and the
// kernel does not read what is passed instead.
Launch bound(Launch launch, const Sizes& sizes, bool with_logits) {
  launch.arrays = launch.inputs;
  if (!with_logits || sizes.T == 0) {
    std::replace(
        launch.arrays.begin(),
        launch.arrays.end(),
        std::string("normalisers"),
        std::string("log_probs"));
  }
  return launch;
}

// A threadgroup for each of so many segments of a sequence. CUDA limits the
// grid's second and third dimension.
std::tuple<int, int, int> segments_grid(int threads, int64_t segments, int N) {
  int across = std::min(N, 65535);
  return {
      static_cast<int>(threads * segments),
      across,
      static_cast<int>(ceil_div(N, across))};
}

Launch normalisers_launch(const Sizes& sizes) {
  // Eight classes or more a thread, so that what the threads of a frame do
  // together stays little beside what each does alone.
  constexpr int threads = 256;
  constexpr int64_t max_threadgroups = 1 << 20;
  int frame_threads = sizes.C > 16384
      ? threads
      : power_of_two_below(sizes.C / 8, simdgroup_width);
  int64_t frames = int64_t(sizes.T) * sizes.N;
  int64_t threadgroups =
      std::min(ceil_div(frames * frame_threads, threads), max_threadgroups);
  return {
      .name = "ctc_normalisers",
      .inputs = {"log_probs", "input_lengths"},
      .outputs = {{"normalisers", {sizes.N, sizes.T, 2}, mx::float32}},
      .template_args = {{"THREADS", threads}, {"FRAME_THREADS", frame_threads}},
      .grid = {static_cast<int>(threadgroups) * threads, 1, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = threads,
      .resident = 8,
      .functions = text::normalisers.functions,
      .source = text::normalisers.body};
}

Launch
scan_launch(const Sizes& sizes, const Options& options, Backend backend) {
  // Two simdgroups for a window: the windows follow one another a segment
  // apart, and none waits for another's arithmetic.
  int most = max_scan_windows(backend);
  int windows = std::min(sizes.windows(), most);
  int threads = 2 * windows * simdgroup_width;
  // A text for each of a few sizes.
  int room = windows > 8 ? windows : power_of_two_up_to(windows, most);
  int max_threads = 2 * room * simdgroup_width;
  bool rounds = sizes.windows() > windows;
  int segment = frames_of_segment(sizes, backend);
  auto [T, N, C, S] = sizes;
  int V = sizes.windows();
  int segments = std::max<int>(ceil_div(T, segment), 1);
  int parts = std::max<int>(ceil_div(S, part), 1);
  return {
      .name = "ctc_scan",
      .inputs = joined({batch, {"normalisers"}}),
      .outputs =
          {{"loss", {N}, mx::float32},
           {"partition", {N}, mx::uint64},
           {"checkpoints", {N, segments, 2, S + 1, 2}, mx::uint64},
           {"edges", {N, segments, V + 1, 3, 2, segment}, mx::uint32},
           {"classes", {N, parts, C}, mx::uint32},
           {"labels", {N, std::max(S, 1)}, mx::uint64},
           {"places", {N, std::max(S, 1)}, mx::uint16}},
      .template_args =
          {{"LOGITS", options.with_logits},
           {"BLANK", options.blank},
           {"ZERO_INFINITY", options.zero_infinity},
           {"ROUNDS", rounds},
           {"SEGMENT", segment},
           {"PART", part},
           {"MAX_WINDOWS", room}},
      // alpha, w, and the lists of equal labels.
      .grid = {threads * N, 3, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = max_threads,
      // Registers for 64 a thread.
      .resident = std::max(1024 / max_threads, 1),
      .functions = text::scan.functions,
      .source = text::scan.body};
}

Launch gradient_launch(
    const Sizes& sizes,
    const Options& options,
    mx::Dtype dtype,
    Backend backend) {
  auto [T, N, C, S] = sizes;
  // A simdgroup for a window of states, up to four, that leave few idle in the
  // last turn.
  int simdgroups = std::min(sizes.windows(), 2);
  for (int more : {3, max_gradient_simdgroups}) {
    if (ceil_div(sizes.windows(), more) * more <=
        ceil_div(sizes.windows(), simdgroups) * simdgroups) {
      simdgroups = more;
    }
  }
  int room = power_of_two_up_to(sizes.windows(), max_gradient_simdgroups);
  int threads = simdgroups * simdgroup_width;
  int max_threads = room * simdgroup_width;
  if (C >= 1024) { // long rows are written by more
    threads = max_threads = 256;
  }
  // A threadgroup writes a segment's frames if gamma, a float for each label
  // and frame, fits its memory beside the probabilities. With fewer frames the
  // segment is rebuilt more than once.
  int segment = frames_of_segment(sizes, backend);
  int capacity =
      std::min(power_of_two_up_to(std::max(S, simdgroup_width), part), part);
  int frames = segment;
  int probabilities = segment * room * simdgroup_width;
  while (4 * (frames * capacity + probabilities) > threadgroup_bytes) {
    frames /= 2;
  }
  // Short rows are written side by side, a thread for each class.
  int side_by_side = power_of_two_below(threads / C, std::min(frames, 4));
  return {
      .name = "ctc_gradient",
      .inputs = joined({batch, {"cotangent"}, tables}),
      .outputs = {{"gradient", {T, N, C}, dtype}},
      .template_args =
          {{"LOGITS", options.with_logits},
           {"BLANK", options.blank},
           {"ELEMENT", dtype},
           {"SEGMENT", segment},
           {"FRAMES", frames},
           {"SIDE_BY_SIDE", side_by_side},
           {"PART", part},
           {"CAPACITY", capacity},
           {"MAX_SIMDGROUPS", room}},
      .grid = segments_grid(threads, ceil_div(T, frames), N),
      .threadgroup = {threads, 1, 1},
      .max_threads = max_threads,
      // Registers for 72 a thread.
      .resident = 896 / max_threads,
      .functions = text::gradient.functions,
      .source = text::gradient.body};
}

Launch
align_launch(const Sizes& sizes, const AlignOptions& options, Backend backend) {
  constexpr int block = 8; // frames
  int max_simdgroups = max_scan_windows(backend);
  // With the last blank a target of S labels has S + 1 pairs here.
  int windows = sizes.S / simdgroup_width + 1;
  int simdgroups = power_of_two_up_to(windows, max_simdgroups);
  int threads = simdgroups * simdgroup_width;
  bool rounds = windows > max_simdgroups;
  auto [T, N, C, S] = sizes;
  int blocks = ceil_div(T, block);
  return {
      .name = "ctc_align",
      .inputs = joined({batch, {"normalisers"}}),
      .outputs =
          {{"alignments", {N, T}, mx::int32},
           {"scores", {N, T}, mx::float32},
           {"moves", {N, blocks, S + 1}, mx::uint32},
           {"edges", {N, 2, rounds ? T : 1}, mx::int64}},
      .template_args =
          {{"LOGITS", options.with_logits},
           {"BLANK", options.blank},
           {"ROUNDS", rounds},
           {"MAX_SIMDGROUPS", max_simdgroups}},
      .grid = {threads * N, 1, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = max_simdgroups * simdgroup_width,
      .resident = 1,
      .functions = text::align.functions,
      .source = text::align.body};
}

Launch posteriors_launch(
    const Sizes& sizes,
    const PosteriorOptions& options,
    Backend backend) {
  auto [T, N, C, S] = sizes;
  int segment = frames_of_segment(sizes, backend);
  int simdgroups = std::min(sizes.windows(), max_gradient_simdgroups);
  int threads = simdgroups * simdgroup_width;
  return {
      .name = "ctc_posteriors",
      .inputs = joined({batch, tables}),
      .outputs =
          {{"by_label", {N, T, S + 1}, mx::float32},
           {"by_class", {N, T, options.by_class ? C : 1}, mx::float32}},
      .template_args =
          {{"LOGITS", options.with_logits},
           {"BLANK", options.blank},
           {"BY_CLASS", options.by_class},
           {"SEGMENT", segment},
           {"PART", part},
           {"MAX_SIMDGROUPS", max_gradient_simdgroups}},
      .grid = segments_grid(threads, ceil_div(T, segment), N),
      .threadgroup = {threads, 1, 1},
      .max_threads = max_gradient_simdgroups * simdgroup_width,
      .resident = 1,
      .functions = text::posteriors.functions,
      .source = text::posteriors.body};
}

} // namespace

Outputs without_names(const std::vector<NamedOutput>& named) {
  Outputs outputs;
  for (const auto& [name, shape, dtype] : named) {
    outputs.shapes.push_back(shape);
    outputs.dtypes.push_back(dtype);
  }
  return outputs;
}

std::string header(const Launch& launch, Backend backend) {
  std::string result;
  if (backend == Backend::cuda) {
    result += "#define LAUNCH_BOUNDS ";
    result += std::to_string(launch.max_threads) + ", ";
    result += std::to_string(launch.resident) + "\n";
    result += text::cuda_prelude;
  }
  result += launch.functions;
  return result;
}

std::vector<Launch> loss_launches(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend) {
  Sizes sizes(inputs);
  if (sizes.N == 0) {
    return {};
  }
  std::vector<Launch> launches;
  if (options.with_logits && sizes.T > 0) {
    launches.push_back(bound(normalisers_launch(sizes), sizes, true));
  }
  auto scan = scan_launch(sizes, options, backend);
  launches.push_back(bound(std::move(scan), sizes, options.with_logits));
  return launches;
}

std::vector<Launch> gradient_launches(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend) {
  if (inputs[0].size() == 0) {
    return {};
  }
  Sizes sizes(inputs);
  auto launch = gradient_launch(sizes, options, inputs[0].dtype(), backend);
  return {bound(std::move(launch), sizes, options.with_logits)};
}

std::vector<Launch> align_launches(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    Backend backend) {
  if (inputs[0].size() == 0) {
    return {};
  }
  Sizes sizes(inputs);
  std::vector<Launch> launches;
  if (options.with_logits) {
    launches.push_back(bound(normalisers_launch(sizes), sizes, true));
  }
  auto launch = align_launch(sizes, options, backend);
  launches.push_back(bound(std::move(launch), sizes, options.with_logits));
  return launches;
}

std::vector<Launch> posterior_launches(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options,
    Backend backend) {
  if (inputs[0].size() == 0) {
    return {};
  }
  Sizes sizes(inputs);
  auto launches = loss_launches(inputs, options.loss(), backend);
  auto launch = posteriors_launch(sizes, options, backend);
  launches.push_back(bound(std::move(launch), sizes, options.with_logits));
  return launches;
}

} // namespace mlx_ctc::gpu
