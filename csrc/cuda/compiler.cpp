#include "cuda/compiler.h"

#include <exception>
#include <utility>

namespace mlx_ctc::cuda {

Compiler::Compiler(
    Libraries libraries,
    const std::function<Device()>& device,
    Shipped shipped,
    DiskCache cache)
    : libraries_(std::move(libraries)),
      shipped_(std::move(shipped)),
      cache_(std::move(cache)) {
  try {
    device_ = device();
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
  if (!device_) {
    add(&Counts::failed);
    return "";
  }
  if (auto found = shipped_.load(source.function, *device_)) {
    add(&Counts::shipped);
    return *found;
  }
  const auto& toolchain = this->toolchain(*device_);
  auto key = toolchain.description() + "\n" + source.text;
  if (auto found = cache_.load(key)) {
    add(&Counts::loaded);
    return *found;
  }
  auto code = toolchain.compile(source);
  cache_.store(key, code);
  add(&Counts::compiled);
  return code;
}

const Toolchain& Compiler::toolchain(Device device) {
  std::lock_guard lock(toolchain_mutex_);
  if (toolchain_ == nullptr) {
    toolchain_ = std::make_unique<Toolchain>(libraries_, device);
  }
  return *toolchain_;
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
