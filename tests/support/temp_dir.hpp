// A temporary directory of a test, with a path short enough for UNIX sockets.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace support {

/// The prefix of this process's temporary directories.
inline std::string temp_dir_prefix() { return "anyio_net_test." + std::to_string(::getpid()) + "."; }

/// Creates a directory in /tmp, and removes it with its content when destroyed.
class temp_dir {
 public:
  temp_dir() : path_("/tmp/" + temp_dir_prefix() + "XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) {
      std::perror(path_.c_str());
      std::abort();
    }
  }
  temp_dir(const temp_dir&) = delete;
  temp_dir& operator=(const temp_dir&) = delete;
  ~temp_dir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  /// The directory.
  const std::string& path() const { return path_; }

  /// The path of a file in it; creates nothing.
  std::string path(std::string_view name) const { return path_ + '/' + std::string(name); }

 private:
  std::string path_;
};

}  // namespace support
