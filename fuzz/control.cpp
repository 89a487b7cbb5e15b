// Descriptors in messages. Raw control data of any content is read within its size, with the same result as a
// plain walk over it. On a simulated UNIX stream, with any sends, receives with and without enough room,
// cancellations and closes while descriptors are in flight: everything arrives in order and is owned,
// everything else is closed, more descriptors than requested are `fds_truncated`, and at the end no
// descriptor is open.
#include <array>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include "support/world.hpp"

// Not declared in a header: only receiving descriptors needs it.
namespace anyio {
inline namespace ANYIO_NET_ABI {
namespace detail {
bool take_descriptors(backend& system, void* control, std::size_t size, std::vector<unique_fd>& fds);
}
}
}

namespace {

/// The descriptors in control data, by the walk that cmsg(3) describes.
std::vector<int> descriptors_in(std::span<const std::uint8_t> control) {
  std::vector<int> found;
  std::size_t at = 0;
  while (at + sizeof(cmsghdr) <= control.size()) {
    cmsghdr header;
    std::memcpy(&header, control.data() + at, sizeof header);
    if (header.cmsg_len < sizeof header || header.cmsg_len > control.size() - at) break;
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS) {
      for (std::size_t i = sizeof header; i + sizeof(int) <= header.cmsg_len; i += sizeof(int)) {
        int fd;
        std::memcpy(&fd, control.data() + at + i, sizeof fd);
        found.push_back(fd);
      }
    }
    at += (header.cmsg_len + sizeof(std::size_t) - 1) / sizeof(std::size_t) * sizeof(std::size_t);
  }
  return found;
}

void check_raw(fuzz::input in) {
  // Headers that are nearly right find more than noise.
  std::vector<std::uint8_t> control;
  while (!in.empty() && control.size() < 600) {
    const unsigned how = in.byte();
    const auto body = in.take(in.byte() % 40);
    if ((how & 1) == 0) {
      cmsghdr header{};
      header.cmsg_level = SOL_SOCKET;
      header.cmsg_type = SCM_RIGHTS;
      header.cmsg_len = sizeof header + body.size() + ((how & 2) != 0 ? in.number(how >> 6) : 0);
      if ((how & 4) != 0) header.cmsg_level = in.byte();
      if ((how & 8) != 0) header.cmsg_type = in.byte();
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(&header);
      control.insert(control.end(), bytes, bytes + sizeof header);
    }
    control.insert(control.end(), body.begin(), body.end());
    if ((how & 16) == 0) control.resize((control.size() + 7) / 8 * 8);
  }
  const auto exact = std::make_unique<std::uint8_t[]>(control.size());
  std::copy(control.begin(), control.end(), exact.get());
  auto& system = anyio::detail::loop_core::current().system();
  std::vector<anyio::unique_fd> owned;
  owned.reserve(control.size() / sizeof(int));
  FUZZ_CHECK(anyio::detail::take_descriptors(system, exact.get(), control.size(), owned));
  std::vector<int> numbers;
  for (anyio::unique_fd& fd : owned)
    numbers.push_back(fd.release());  // they have no meaning, and are not closed
  FUZZ_CHECK(numbers == descriptors_in(control));

  // Packet information in it is read within its size, too.
  anyio::detail::message m;
  m.control = exact.get();
  m.control_size = control.size();
  anyio::packet_info info;
  anyio::detail::packet_info_in_control.read(m, info);
  FUZZ_CHECK(info.ecn >= 0 && info.ecn <= 3);
}
anyio::task<> read_raw(fuzz::input in) {
  check_raw(in);
  co_return;
}

class exchange {
 public:
  exchange(fuzz::input in, bool may_reset) noexcept : in_(in), may_reset_(may_reset) {}

  anyio::task<> run() {
    auto made = anyio::create_unix_stream_pair();
    if (!made) co_return;
    from_ = std::move(made->first);
    to_ = std::move(made->second);
    for (int calls = 0; calls < 60 && !in_.empty(); ++calls) co_await call();
    if (all_are_taken_) {
      anyio::sim::heal();
      co_await take_the_rest();
    }
  }

 private:
  anyio::task<> call() {
    switch (in_.byte() % 12) {
      case 0:
      case 1:
      case 2: co_await send(); break;
      case 3:
      case 4:
      case 5: co_await receive(); break;
      case 6: {  // plain bytes between those with descriptors
        const std::string bytes(1 + in_.byte(), 'p');
        auto r = co_await anyio::as_result(
            anyio::move_on_after(std::chrono::seconds(0), from_.send(anyio::const_buffer(bytes))));
        check(r);
        break;
      }
      case 7: {  // a plain receive closes descriptors that arrive with its bytes
        all_are_taken_ = false;
        auto r = co_await anyio::as_result(
            anyio::move_on_after(std::chrono::seconds(0), to_.receive(1 + in_.length(300))));
        check(r);
        break;
      }
      case 8: held_.clear(); break;
      case 9: received_.clear(); break;
      case 10:
        all_are_taken_ = false;
        in_.flag() ? from_.close() : to_.close();
        break;
      case 11: {  // a pending one that is cancelled
        const std::size_t most = 1 + in_.byte();
        auto waiting = to_.receive_fds(10, most);
        waiting.start([this, most](anyio::result<anyio::fd_message> r) { arrived(std::move(r), 10, most); });
        if (in_.flag()) co_await send();
        waiting = {};
        break;
      }
    }
  }
  template <class T>
  void check(const anyio::result<T>& r) {
    if (r) return;
    const anyio::errc code = r.error().code();
    if (code == anyio::errc::closed_resource) return FUZZ_CHECK(!from_ || !to_);
    if (code == anyio::errc::end_of_stream) return FUZZ_CHECK(!from_);
    FUZZ_CHECK(code == anyio::errc::broken_resource);
    FUZZ_CHECK(may_reset_ || !from_ || !to_);
    all_are_taken_ = false;
  }
  std::uint64_t identity_of(int fd) {
    anyio::detail::file_identity identity;
    anyio::backend& system = anyio::detail::loop_core::current().system();
    const int status = anyio::detail::files_of(system).identify(fd, identity);
    FUZZ_CHECK(status == 0);
    return identity.inode;
  }
  anyio::task<> send() {
    const std::size_t size = in_.length(3000);
    const std::size_t count = in_.flag() ? in_.length(260) : in_.pick(4);
    std::vector<int> fds;
    for (std::size_t i = 0; i < count; ++i) {
      const unsigned which = in_.byte();
      if (which == 1 && from_) {
        fds.push_back(from_.native_handle());  // the same stream that it is sent through
      } else if (which == 2 && to_) {
        fds.push_back(to_.native_handle());
      } else if (which < 128 || held_.empty()) {
        auto one = anyio::udp_socket::open({anyio::ip_address::loopback_v4(), 0});
        if (!one) continue;
        fds.push_back(one->native_handle());
        held_.push_back(std::move(*one));
      } else {
        fds.push_back(held_[which % held_.size()].native_handle());
      }
    }
    const std::string bytes(size, 'b');
    auto op = from_.send_fds(anyio::const_buffer(bytes), fds);
    auto r = co_await anyio::as_result(anyio::move_on_after(std::chrono::seconds(0), std::move(op)));
    const bool wrong = bytes.empty() || fds.empty() || fds.size() > 253;
    if (wrong) {
      FUZZ_CHECK(!r && r.error() == anyio::errc::invalid_argument);
      co_return;
    }
    if (!r || !*r) {  // descriptors may have been sent, or not
      all_are_taken_ = false;
      check(r);
      co_return;
    }
    for (const int fd : fds) sent_.push_back(identity_of(fd));
  }
  anyio::task<> receive() {
    const std::size_t bytes = in_.length(3000);
    const std::size_t most = in_.flag() ? 1 + in_.byte() : 253;
    auto r = co_await anyio::as_result(
        anyio::move_on_after(std::chrono::seconds(0), to_.receive_fds(bytes, most)));
    if (!r) {
      arrived(r.error(), bytes, most);
    } else if (*r) {
      arrived(std::move(**r), bytes, most);
    }
  }
  void arrived(anyio::result<anyio::fd_message> r, std::size_t bytes, std::size_t most) {
    if (!r && r.error() == anyio::errc::fds_truncated) {
      FUZZ_CHECK(most < 253);
      all_are_taken_ = false;
      return;
    }
    check(r);
    if (r) take(*r, bytes, most);
  }
  void take(anyio::fd_message& m, std::size_t bytes, std::size_t most) {
    FUZZ_CHECK(m.data.size() <= bytes);
    FUZZ_CHECK(m.fds.size() <= most);
    std::set<int> numbers;
    for (anyio::unique_fd& fd : m.fds) {
      FUZZ_CHECK(numbers.insert(fd.get()).second);
      const std::uint64_t identity = identity_of(fd.get());
      if (all_are_taken_) {
        FUZZ_CHECK(taken_ < sent_.size());
        FUZZ_CHECK(identity == sent_[taken_]);
      }
      ++taken_;
      received_.push_back(std::move(fd));
    }
  }
  /// If nothing was lost on purpose, all sent bytes have arrived.
  anyio::task<> take_the_rest() {
    while (taken_ < sent_.size()) {
      auto r = co_await anyio::as_result(to_.receive_fds(4000, 253));
      if (!r && may_reset_) co_return;
      FUZZ_CHECK(r.has_value());
      take(*r, 4000, 253);
    }
  }

  fuzz::input in_;
  bool may_reset_;
  bool all_are_taken_ = true;
  anyio::unix_stream from_, to_;
  std::vector<anyio::udp_socket> held_;
  std::vector<anyio::unique_fd> received_;
  std::vector<std::uint64_t> sent_;
  std::size_t taken_ = 0;
};

anyio::task<> play(fuzz::input in, bool may_reset) {
  exchange e(in, may_reset);
  co_await e.run();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  anyio::sim::options o = fuzz::new_options();
  if ((in.byte() & 1) != 0) {
    fuzz::check(anyio::sim::run(o, read_raw(in)));
    return 0;
  }
  o.faults = fuzz::faults_of(in);
  o.choices = in.take_tail(in.byte());
  fuzz::check(anyio::sim::run(o, play(in, o.faults.reset > 0)));
  return 0;
}
