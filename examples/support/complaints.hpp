// A server's error messages on standard error: at most ten lines a second, and the number of omitted ones.
// Otherwise clients that can cause errors at will could fill the disk with the log.
#pragma once

#include "anyio_net.hpp"

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "printable.hpp"

class complaints {
 public:
  explicit complaints(std::string_view program) : program_(program) {}

  void operator()(const anyio::error& e) { complain(printable(e.message())); }
  void operator()(const anyio::error& e, const anyio::ip_endpoint& peer) {
    complain(peer.to_string() + ": " + printable(e.message()));
  }

 private:
  void complain(const std::string& words) {
    const auto now = anyio::now();
    if (now - since_ >= std::chrono::seconds(1)) {
      if (count_ > most) say(std::to_string(count_ - most) + " messages were omitted");
      since_ = now;
      count_ = 0;
    }
    if (++count_ <= most) say(words);
  }

  static constexpr std::size_t most = 10;

  void say(const std::string& words) const {
    std::fprintf(stderr, "%s: %s\n", program_.c_str(), words.c_str());
  }

  std::string program_;
  anyio::time_point since_;
  std::size_t count_ = 0;
};
