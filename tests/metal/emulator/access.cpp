#include "access.h"

#include <sstream>

namespace emulator {

namespace {

std::string name_of(const Moment& who) {
  std::ostringstream text;
  text << "thread " << who.thread << " of threadgroup " << who.threadgroup;
  return text.str();
}

std::string describe(const Region& region, const Access& access) {
  auto offset = static_cast<const std::byte*>(access.address) - region.data;
  std::ostringstream text;
  text << name_of(access.moment) << (access.is_write ? " writes " : " reads ")
       << access.size << " bytes at byte " << offset << " of '" << region.name
       << "' (" << region.size << " bytes)";
  return text.str();
}

// The earlier access to one byte with which this one races.
std::optional<std::string> find_race(
    const History& byte,
    const Access& access) {
  if (auto write = byte.unordered_write(access.moment)) {
    return "written by " + name_of(*write);
  }
  if (access.is_write) {
    if (auto read = byte.unordered_read(access.moment)) {
      return "read by " + name_of(*read);
    }
  }
  return std::nullopt;
}

} // namespace

std::optional<Fault> check_access(Region& region, const Access& access) {
  auto fault = [&](const std::string& kind, const std::string& detail = "") {
    return Fault{kind + ": " + describe(region, access) + detail, access.code};
  };

  auto first = static_cast<const std::byte*>(access.address) - region.data;
  auto last = first + static_cast<ptrdiff_t>(access.size);
  if (first < 0 || last > static_cast<ptrdiff_t>(region.size)) {
    return fault("out of bounds");
  }
  if (access.is_write && !region.writable) {
    return fault("write to an input");
  }
  for (auto i = first; i < last; ++i) {
    if (!access.is_write && !region.initialised[i]) {
      return fault("uninitialised");
    }
    if (auto other = find_race(region.history[i], access)) {
      return fault("race", ", " + *other + " with no barrier between");
    }
    if (access.is_write) {
      region.initialised[i] = 1;
      region.history[i].record_write(access.moment);
    } else {
      region.history[i].record_read(access.moment);
    }
  }
  return std::nullopt;
}

} // namespace emulator
