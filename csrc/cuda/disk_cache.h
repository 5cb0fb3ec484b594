// Compiled kernels in a folder of the user's, for later processes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mlx_ctc::cuda {

// A file for each key. Several processes may use a folder at once: a file
// appears complete or not at all. No failure of the file system is an error:
// what cannot be read is not found, and what cannot be written is not kept.
class DiskCache {
 public:
  // Whose files are trusted: this user's that no other may write to, or those
  // of whoever has installed the package.
  enum class Owner { user, any };

  // With an empty folder, nothing is found or kept.
  DiskCache(std::string folder, int64_t max_bytes, Owner owner = Owner::user)
      : folder_(std::move(folder)), max_bytes_(max_bytes), owner_(owner) {}

  // What was stored under the key. A file counts only if its owner is trusted,
  // its checksum is right, and it has the whole key.
  std::optional<std::string> load(const std::string& key) const;

  // Whether it was written. Removes those files that have not been used for the
  // longest time, until all together have at most max_bytes.
  bool store(const std::string& key, const std::string& value) const;

 private:
  std::string path_of(const std::string& key) const;
  void trim() const;

  std::string folder_;
  int64_t max_bytes_;
  Owner owner_;
};

// The folder that an environment variable names, empty if that is "off";
// nothing if the variable is not set or is empty.
std::optional<std::string> named_folder(const char* variable);

// MLX_CTC_CACHE if it is set, else mlx_ctc in the user's folder for caches.
// Empty if it is set to "off", or there is no such folder.
std::string cache_folder();

} // namespace mlx_ctc::cuda
