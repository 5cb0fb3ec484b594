#include "cuda/compiler.h"

#include <exception>
#include <utility>

namespace mlx_ctc::cuda {

namespace {

// Of all that the code depends on. A change of what is written here makes new
// keys.
std::string key_of(
    const Source& source,
    const std::vector<std::string>& options,
    std::pair<int, int> version) {
  std::string key = "NVRTC " + std::to_string(version.first) + "." +
      std::to_string(version.second);
  for (const auto& option : options) {
    key += " " + option;
  }
  return key + "\n" + source.text;
}

} // namespace

Compiler::Compiler(
    const std::string& library,
    const std::function<Architecture()>& device,
    DiskCache cache)
    : cache_(std::move(cache)) {
  try {
    auto nvrtc = std::make_unique<Nvrtc>(library);
    // The kernels' text hides the attribute __device__ (cuda_prelude.h).
    options_ = {nvrtc->target(device()), "--device-as-default-execution-space"};
    nvrtc_ = std::move(nvrtc);
  } catch (const std::exception& error) {
    counts_.error = error.what();
  }
}

void Compiler::start(const Key& key, const MakeSource& source) {
  future(key, source);
}

const Kernel& Compiler::get(const Key& key, const MakeSource& source) {
  return future(key, source).get();
}

Compiler::Counts Compiler::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

std::shared_future<Kernel> Compiler::future(
    const Key& key,
    const MakeSource& source) {
  std::lock_guard lock(mutex_);
  auto found = kernels_.find(key);
  if (found == kernels_.end()) {
    auto task = [this, source = source()] { return kernel(source); };
    // Where the system does not start another thread: when it is waited for.
    auto policy = std::launch::async | std::launch::deferred;
    auto kernel = std::async(policy, std::move(task));
    found = kernels_.emplace(key, kernel.share()).first;
  }
  return found->second;
}

Kernel Compiler::kernel(const Source& source) {
  try {
    return {source.function, code(source)};
  } catch (const std::exception& error) {
    fail(error.what());
    return {source.function, ""};
  }
}

std::string Compiler::code(const Source& source) {
  if (nvrtc_ == nullptr) {
    add(&Counts::failed);
    return "";
  }
  auto key = key_of(source, options_, nvrtc_->version());
  if (auto found = cache_.load(key)) {
    add(&Counts::loaded);
    return *found;
  }
  auto code = nvrtc_->compile(source.function, source.text, options_);
  cache_.store(key, code);
  add(&Counts::compiled);
  return code;
}

void Compiler::add(int Counts::* number) {
  std::lock_guard lock(mutex_);
  ++(counts_.*number);
}

void Compiler::fail(const char* error) {
  std::lock_guard lock(mutex_);
  ++counts_.failed;
  counts_.error = error;
}

} // namespace mlx_ctc::cuda
