// Planned datagrams over UDP and UNIX sockets, with loss, duplicates, reordering, buffers that are too small,
// empty datagrams and refusals; with packet information or descriptors, or without. Each received datagram is
// one that was sent, whole or truncated and marked so; it arrives no more often than the faults allow, and
// without faults all arrive in order. A socket survives every error: at the end a last datagram arrives.
#include <array>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;

class traffic {
 public:
  traffic(fuzz::input in, const anyio::sim::faults& f) noexcept
      : in_(in),
        lossy_(f.drop > 0),
        doubled_(f.duplicate > 0),
        disordered_(f.reorder > 0 || f.latency_max > 0ns) {}

  anyio::task<> run() {
    const unsigned how = in_.byte();
    with_info_ = how >= 128;
    switch (how % 3) {
      case 0: co_await over_udp(); break;
      case 1: co_await over_connected_udp(); break;
      case 2: co_await over_unix(); break;
    }
  }

 private:
  struct message {
    std::string bytes;
    int arrived = 0;
  };

  /// An empty datagram, or one that begins with its number.
  const std::string& next(std::size_t most) {
    const std::size_t size = in_.length(most);
    std::string bytes = fuzz::payload(static_cast<std::uint8_t>(sent_.size()), 0, size);
    if (size > 1) bytes[1] = static_cast<char>(sent_.size() >> 8);
    sent_.push_back({std::move(bytes)});
    return sent_.back().bytes;
  }
  /// A receiver that queues more than a system's buffer holds loses later datagrams.
  void note_load() {
    std::size_t waiting = 0;
    for (const message& m : sent_) waiting += m.arrived != 0 ? 0 : m.bytes.size();
    lossy_ = lossy_ || waiting > 120000;
  }
  void arrived(std::string_view bytes, bool truncated, std::size_t room) {
    const auto is_it = [&](const message& m) {
      if (!truncated) return m.bytes == bytes;
      return bytes.size() == room && m.bytes.size() > room && m.bytes.starts_with(bytes);
    };
    // Of several equal ones, the one that has arrived least often.
    message* best = nullptr;
    for (std::size_t i = disordered_ ? 0 : next_; i < sent_.size(); ++i) {
      if (is_it(sent_[i]) && (best == nullptr || sent_[i].arrived < best->arrived)) best = &sent_[i];
      if (best != nullptr && best->arrived == 0) break;
    }
    FUZZ_CHECK(best != nullptr);
    ++best->arrived;
    FUZZ_CHECK(best->arrived <= (doubled_ ? 2 : 1) || truncated);
    if (!doubled_ && !disordered_) {
      const auto place = static_cast<std::size_t>(best - sent_.data());
      FUZZ_CHECK(lossy_ || place == next_);
      next_ = place + 1;
    }
  }
  void check_failure(const anyio::error& error, bool connected) {
    if (error == anyio::errc::broken_resource) {
      FUZZ_CHECK(connected);
      return FUZZ_CHECK(error == std::errc::connection_refused);
    }
    FUZZ_CHECK(error == anyio::errc::os_error);
    FUZZ_CHECK(error == std::errc::message_size || error == std::errc::connection_refused);
  }

  template <class Socket>
  anyio::task<> receive(Socket& s, bool connected) {
    const unsigned how = in_.byte();
    const auto patience = std::chrono::microseconds((how & 15) * 100);
    if ((how & 16) == 0) {
      auto r = co_await anyio::as_result(anyio::move_on_after(patience, s.receive()));
      if (!r) co_return check_failure(r.error(), connected);
      if (!*r) co_return;
      if constexpr (std::is_same_v<std::decay_t<decltype(**r)>, std::string>) {
        arrived(**r, false, 0);
      } else {
        arrived((*r)->data, false, 0);
        check_info((*r)->info);
      }
    } else if constexpr (requires(char* p) { s.receive(anyio::mutable_buffer(p, 1)); }) {
      std::string room(1 + in_.length(2000), '\0');
      auto r = co_await anyio::as_result(
          anyio::move_on_after(patience, s.receive(anyio::mutable_buffer(room.data(), room.size()))));
      if (!r) co_return check_failure(r.error(), connected);
      if (*r) arrived(std::string_view(room).substr(0, (*r)->size), (*r)->truncated, room.size());
    }
  }
  anyio::task<> drain(anyio::udp_socket& s, bool all) {
    for (;;) {
      auto r = co_await anyio::as_result(anyio::move_on_after(all ? 1min : 0s, s.receive()));
      if (!r) {
        check_failure(r.error(), false);
        continue;
      }
      if (!*r) co_return;
      arrived((*r)->data, false, 0);
      check_info((*r)->info);
    }
  }
  void check_info(const anyio::packet_info& info) {
    FUZZ_CHECK(info == (with_info_ ? anyio::packet_info{here_, 1, 0, 64} : anyio::packet_info()));
  }
  void complete() {
    if (lossy_) return;
    std::size_t count = 0;
    for (const message& m : sent_) {
      FUZZ_CHECK(m.arrived != 0 || truncated_one_);
      count += m.arrived != 0;
    }
    FUZZ_CHECK(truncated_one_ || count == sent_.size());
  }

  anyio::task<> batch(anyio::udp_socket& from, anyio::udp_socket& to, const anyio::ip_endpoint& target) {
    anyio::udp_batch out(1 + in_.pick(20), 700);
    const std::size_t count = in_.pick(20);
    const std::size_t first = sent_.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::string& bytes = next(700);
      if (!out.push(anyio::const_buffer(bytes), target)) {
        sent_.pop_back();
        break;
      }
    }
    if (out.size() != 0) {
      auto r = co_await anyio::as_result(from.send_batch(out));
      if (!r) check_failure(r.error(), false);
      const std::size_t went = r ? *r : 0;
      FUZZ_CHECK(went <= out.size());
      sent_.resize(first + went);
      note_load();
    }
    const std::size_t room = 1 + in_.length(900);
    anyio::udp_batch back(1 + in_.pick(20), room);
    auto r = co_await anyio::as_result(anyio::move_on_after(0s, to.receive_batch(back)));
    if (!r) co_return check_failure(r.error(), false);
    if (!*r) co_return;
    FUZZ_CHECK(**r >= 1 && **r == back.size());
    for (const auto& d : back) {
      truncated_one_ = truncated_one_ || d.truncated;
      check_info(d.info);
      arrived({reinterpret_cast<const char*>(d.data.data()), d.data.size()}, d.truncated, room);
    }
  }

  anyio::task<> over_udp() {
    here_ = in_.flag() ? anyio::ip_address::loopback_v6() : anyio::ip_address::loopback_v4();
    auto from = anyio::udp_socket::open({here_, 0});
    auto to = anyio::udp_socket::open({here_, 0});
    if (!from || !to) co_return;
    if (with_info_) FUZZ_CHECK(to->set_packet_info(true).has_value());
    const anyio::ip_endpoint target = to->local_endpoint();
    for (int calls = 0; calls < 60 && !in_.empty(); ++calls) {
      switch (in_.byte() % 4) {
        case 0: {
          const std::string bytes = next(66000);
          auto r = co_await anyio::as_result(from->send_to(anyio::const_buffer(bytes), target));
          if (!r) {
            sent_.pop_back();
            check_failure(r.error(), false);
          }
          note_load();
          break;
        }
        case 1:
          truncated_one_ = true;
          co_await receive(*to, false);
          break;
        case 2: co_await drain(*to, false); break;
        case 3: co_await batch(*from, *to, target); break;
      }
    }
    anyio::sim::heal();
    co_await drain(*to, true);
    complete();
    co_await last(*from, *to, target);
  }
  anyio::task<> last(anyio::udp_socket& from, anyio::udp_socket& to, const anyio::ip_endpoint& target) {
    co_await from.send_to("the last one", target);
    auto r = co_await to.receive();
    FUZZ_CHECK(r.data == "the last one");
    FUZZ_CHECK(r.sender == from.local_endpoint());
  }

  anyio::task<> over_connected_udp() {
    const anyio::ip_endpoint target{anyio::ip_address::loopback_v4(), 9000};
    with_info_ = false;
    auto made = co_await anyio::as_result(anyio::create_connected_udp_socket(target));
    if (!made) co_return;
    anyio::connected_udp_socket from = std::move(*made);
    std::optional<anyio::udp_socket> to;
    disordered_ = disordered_ || lossy_;
    lossy_ = true;  // there may be no receiver
    for (int calls = 0; calls < 60 && !in_.empty(); ++calls) {
      switch (in_.byte() % 5) {
        case 0: {
          const std::string bytes = next(3000);
          auto r = co_await anyio::as_result(from.send(anyio::const_buffer(bytes)));
          if (!r) check_failure(r.error(), true);
          if (!r) sent_.pop_back();
          break;
        }
        case 1:
          if (to) co_await receive(*to, false);
          break;
        case 2: {  // refusals are returned this way
          auto r = co_await anyio::as_result(anyio::move_on_after(1us, from.receive()));
          FUZZ_CHECK(!r || !*r);
          if (!r) check_failure(r.error(), true);
          break;
        }
        case 3:
          if (!to) {
            auto opened = anyio::udp_socket::open(target);
            if (opened) to = std::move(*opened);
          }
          break;
        case 4: to.reset(); break;
      }
    }
    anyio::sim::heal();
    co_await anyio::sleep(1min);
    if (!to) {
      auto opened = anyio::udp_socket::open(target);
      FUZZ_CHECK(opened.has_value());
      to = std::move(*opened);
    }
    co_await drain(*to, false);
    auto stale = co_await anyio::as_result(from.send("first"));  // may report a refusal, once
    if (!stale) check_failure(stale.error(), true);
    co_await from.send("last");
    std::string got;
    while (got != "last") got = (co_await to->receive()).data;
    co_await to->send_to("back", from.local_endpoint());
    const std::string back = co_await from.receive();
    FUZZ_CHECK(back == "back");
  }

  /// Sends or receives a datagram with as many descriptors as its size tells.
  anyio::task<> descriptors(anyio::connected_unix_datagram_socket& from, anyio::unix_datagram_socket& to) {
    const int fds[] = {from.native_handle(), to.native_handle(), from.native_handle()};
    if (in_.flag()) {
      const std::string bytes = next(70000);
      const std::size_t count = 1 + bytes.size() % 3;
      auto r = co_await anyio::as_result(
          anyio::move_on_after(1ms, from.send_fds(anyio::const_buffer(bytes), std::span(fds).first(count))));
      if (!r) check_failure(r.error(), true);
      if (!r || !*r) sent_.pop_back();
      co_return;
    }
    const std::size_t most_bytes = in_.flag() ? 70000 : 1 + in_.length(2000);
    const std::size_t most_fds = in_.flag() ? 3 : 1 + in_.pick(3);
    auto r = co_await anyio::as_result(anyio::move_on_after(0s, to.receive_fds(most_bytes, most_fds)));
    if (!r) {
      FUZZ_CHECK(r.error() == anyio::errc::fds_truncated ? most_fds < 3
                                                         : r.error() == std::errc::message_size);
      lossy_ = true;  // that datagram is gone
    } else if (*r) {
      FUZZ_CHECK((*r)->fds.size() == 1 + (*r)->data.size() % 3);
      FUZZ_CHECK((*r)->data.size() <= most_bytes);
      arrived((*r)->data, false, 0);
    }
  }

  anyio::task<> over_unix() {
    lossy_ = doubled_ = disordered_ = false;  // these are reliable and in order
    auto first = co_await anyio::as_result(anyio::create_unix_datagram_socket({.local_path = "/to"}));
    if (!first) co_return;
    anyio::unix_datagram_socket to = std::move(*first);
    auto second = co_await anyio::as_result(anyio::create_connected_unix_datagram_socket("/to"));
    if (!second) co_return;
    anyio::connected_unix_datagram_socket from = std::move(*second);
    for (int calls = 0; calls < 60 && !in_.empty(); ++calls) {
      if (with_info_) {
        co_await descriptors(from, to);
      } else if (in_.flag()) {
        const std::string bytes = next(70000);
        auto r = co_await anyio::as_result(anyio::move_on_after(1ms, from.send(anyio::const_buffer(bytes))));
        if (!r) check_failure(r.error(), true);
        if (!r || !*r) sent_.pop_back();
      } else {
        auto r = co_await anyio::as_result(anyio::move_on_after(0s, to.receive()));
        FUZZ_CHECK(r.has_value());
        if (*r) arrived((*r)->data, false, 0);
      }
    }
    anyio::sim::heal();
    for (;;) {
      auto r = co_await anyio::move_on_after(0s, to.receive());
      if (!r) break;
      arrived(r->data, false, 0);
    }
    complete();
    co_await from.send("the last one");
    const auto p = co_await to.receive();
    FUZZ_CHECK(p.data == "the last one");
  }

  fuzz::input in_;
  bool lossy_, doubled_, disordered_;
  bool truncated_one_ = false;
  bool with_info_ = false;  // of UNIX datagrams: descriptors
  anyio::ip_address here_;
  std::vector<message> sent_;
  std::size_t next_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const anyio::sim::options o = fuzz::options_of(in);
  traffic t(in, o.faults);
  fuzz::check(anyio::sim::run(o, t.run()));
  return 0;
}
