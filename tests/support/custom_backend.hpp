// The system's backend, of which a test may override single calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "anyio_net.hpp"

namespace support {

/// Everything but waiting is inherited from the POSIX classes; waiting calls the system's backend.
class custom_backend : public anyio::detail::posix_backend,
                       public anyio::detail::posix_names,
                       public anyio::detail::posix_paths,
                       public anyio::detail::posix_batches,
                       public anyio::detail::posix_threads {
 public:
  int watch(int fd, std::uint64_t token) override { return poller_->watch(fd, token); }
  void forget(int fd) override { poller_->forget(fd); }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    return poller_->watch_once(fd, interest, token, again);
  }
  int wait(anyio::detail::slice<anyio::detail::poll_event> events, anyio::duration at_most) override {
    return poller_->wait(events, at_most);
  }
  void wake() override { poller_->wake(); }
  int native_handle() const override { return poller_->native_handle(); }
  int wake_descriptor() const override { return poller_->wake_descriptor(); }
  int after_fork() override { return poller_->after_fork(); }

  anyio::detail::name_service* names() override { return this; }
  anyio::detail::path_service* paths() override { return this; }
  anyio::detail::batch_service* batches() override { return this; }
  anyio::detail::thread_service* threads() override { return this; }

 private:
  std::unique_ptr<anyio::backend> poller_ = anyio::system_backend();
};

}  // namespace support
