#include "cuda/disk_cache.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cuda/hash.h"

namespace mlx_ctc::cuda {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view complete = ".kernel";
constexpr std::string_view partial = ".partial";

// Files that a process left behind while it wrote them.
constexpr auto abandoned_after = std::chrono::hours(1);

// A file: this header, the key, the value.
struct Header {
  char format[8];
  uint64_t key_size;
  uint64_t value_size;
  uint64_t checksum; // of the sizes, the key and the value
};
constexpr char format[8] = {'m', 'l', 'x', '_', 'c', 't', 'c', '1'};

Header header_of(std::string_view key, std::string_view value) {
  Header header = {{}, key.size(), value.size(), 0};
  std::memcpy(header.format, format, sizeof(format));
  std::string_view sizes(
      reinterpret_cast<const char*>(&header.key_size), 2 * sizeof(uint64_t));
  header.checksum = hash(value, hash(key, hash(sizes)));
  return header;
}

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    close();
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const {
    return descriptor_ >= 0;
  }

  // Whether all that was written has arrived.
  bool close() {
    int descriptor = std::exchange(descriptor_, -1);
    return descriptor >= 0 && ::close(descriptor) == 0;
  }

  // The content of a regular file, for Owner::user one that only this user can
  // have written.
  std::optional<std::string> read(DiskCache::Owner owner) const {
    struct stat status;
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      return std::nullopt;
    }
    bool others_write = (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    if (owner == DiskCache::Owner::user &&
        (status.st_uid != geteuid() || others_write)) {
      return std::nullopt;
    }
    std::string content(status.st_size, '\0');
    size_t size = 0;
    while (size < content.size()) {
      ssize_t count =
          ::read(descriptor_, content.data() + size, content.size() - size);
      if (count <= 0) {
        return std::nullopt;
      }
      size += count;
    }
    return content;
  }

  bool write(std::string_view data) const {
    while (!data.empty()) {
      ssize_t count = ::write(descriptor_, data.data(), data.size());
      if (count <= 0) {
        return false;
      }
      data.remove_prefix(count);
    }
    return true;
  }

  // Makes the file the most recently used.
  void touch() const {
    futimens(descriptor_, nullptr);
  }

 private:
  int descriptor_;
};

File open_to_read(const std::string& path) {
  return File(open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// Opens a new file, and puts its name into `path`: the path, characters that
// are random, and the suffix. A process number would not do: those of two
// containers that share the folder may be equal.
File open_new(std::string& path, std::string_view suffix) {
  path.append(".XXXXXX").append(suffix);
  int length = static_cast<int>(suffix.size());
  return File(mkostemps(path.data(), length, O_CLOEXEC));
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

} // namespace

std::string DiskCache::path_of(const std::string& key) const {
  return folder_ + "/" + in_hexadecimal(hash(key)) + std::string(complete);
}

std::optional<std::string> DiskCache::load(const std::string& key) const {
  if (folder_.empty()) {
    return std::nullopt;
  }
  auto file = open_to_read(path_of(key));
  auto content = file.is_open() ? file.read(owner_) : std::nullopt;
  if (!content || content->size() < sizeof(Header) + key.size()) {
    return std::nullopt;
  }
  std::string_view rest = std::string_view(*content).substr(sizeof(Header));
  auto value = rest.substr(key.size());
  auto expected = header_of(key, value);
  if (std::memcmp(content->data(), &expected, sizeof(Header)) != 0 ||
      rest.substr(0, key.size()) != key) {
    return std::nullopt;
  }
  if (owner_ == Owner::user) {
    file.touch();
  }
  return std::string(value);
}

bool DiskCache::store(const std::string& key, const std::string& value) const {
  if (folder_.empty()) {
    return false;
  }
  std::error_code error;
  if (fs::create_directories(folder_, error)) {
    fs::permissions(folder_, fs::perms::owner_all, error);
  }
  auto path = path_of(key);
  auto written = path;
  auto file = open_new(written, partial);
  if (!file.is_open()) {
    return false;
  }
  auto header = header_of(key, value);
  bool ok =
      file.write({reinterpret_cast<const char*>(&header), sizeof(header)}) &&
      file.write(key) && file.write(value) && file.close() &&
      std::rename(written.c_str(), path.c_str()) == 0;
  if (!ok) {
    fs::remove(written, error);
    return false;
  }
  trim();
  return true;
}

void DiskCache::trim() const {
  struct Entry {
    fs::file_time_type used;
    int64_t size;
    fs::path path;
  };
  std::vector<Entry> entries;
  int64_t bytes = 0;
  std::error_code error;
  auto now = fs::file_time_type::clock::now();
  for (fs::directory_iterator i(folder_, error), end; !error && i != end;
       i.increment(error)) {
    std::error_code gone; // removed by another process
    Entry entry = {i->last_write_time(gone), 0, i->path()};
    entry.size = gone ? 0 : static_cast<int64_t>(i->file_size(gone));
    if (gone) {
      continue;
    }
    if (entry.path.extension() == complete) {
      bytes += entry.size;
      entries.push_back(std::move(entry));
    } else if (
        entry.path.extension() == partial &&
        now - entry.used > abandoned_after) {
      fs::remove(entry.path, gone);
    }
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.used < b.used;
  });
  for (size_t i = 0; i < entries.size() && bytes > max_bytes_; ++i) {
    fs::remove(entries[i].path, error);
    bytes -= entries[i].size;
  }
}

std::optional<std::string> named_folder(const char* variable) {
  auto named = environment(variable);
  if (named.empty()) {
    return std::nullopt;
  }
  return named == "off" ? "" : named;
}

std::string cache_folder() {
  if (auto named = named_folder("MLX_CTC_CACHE")) {
    return *named;
  }
  auto caches = environment("XDG_CACHE_HOME");
  if (!caches.starts_with('/')) { // relative ones are invalid
    auto home = environment("HOME");
    caches = home.starts_with('/') ? home + "/.cache" : "";
  }
  return caches.empty() ? "" : caches + "/mlx_ctc";
}

} // namespace mlx_ctc::cuda
