// The system's backend, of which a test may override single calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "anyio_net.hpp"

namespace support {

/// Everything but waiting and signals is the POSIX base's; those two go to a backend of the system's own.
class custom_backend : public anyio::detail::posix_backend {
 public:
  int watch(int fd, std::uint64_t token) override { return poller_->watch(fd, token); }
  void forget(int fd) override { poller_->forget(fd); }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    return poller_->watch_once(fd, interest, token, again);
  }
  int wait(std::span<anyio::detail::poll_event> events, anyio::duration at_most) override {
    return poller_->wait(events, at_most);
  }
  void wake() override { poller_->wake(); }
  int native_handle() const override { return poller_->native_handle(); }
  int catch_signal(int number) override { return poller_->catch_signal(number); }
  void release_signal(int number) override { poller_->release_signal(number); }
  bool take_signal(int number) override { return poller_->take_signal(number); }

 protected:
  int wake_descriptor() override { return -1; }

 private:
  std::unique_ptr<anyio::backend> poller_ = anyio::system_backend();
};

}  // namespace support
