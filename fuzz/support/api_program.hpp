// A program of calls of the public interface, made from bytes, and a model to compare it with.
//
// Each flow of bytes has a number, its first byte, by which the receiving end knows whose bytes it gets, the
// number of bytes sent so far, and whether the sender has ended. The rules of the model:
//  - the received bytes are a prefix of the sent ones, by the exact counts that operations report; at an
//    orderly end they are complete, and an orderly end is reported only after the sender ended;
//  - an operation completes exactly once, or never if it was destroyed, and only with an error that earlier
//    events allow: closed by this end, broken by the peer or by a fault;
//  - time does not run backwards, no sleep is short, `aclose` takes at most a second;
//  - at the end nothing is pending and no descriptor is open.
#pragma once

#include "anyio_net.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "input.hpp"
#include "world.hpp"

namespace fuzz {

class api_program {
 public:
  api_program(input program, bool may_reset) noexcept : in_(program), may_reset_(may_reset) {}
  api_program(const api_program&) = delete;
  api_program& operator=(const api_program&) = delete;

  anyio::task<> run();
  [[nodiscard]] std::uint64_t seen() const noexcept { return seen_.value(); }

 private:
  enum kind : std::uint8_t { memory, tcp, local, kinds };
  enum side : std::uint8_t { reading, writing };

  struct end;
  struct flow {
    std::uint64_t sent = 0;  // that the stream has accepted for sure
    std::uint64_t received = 0;
    bool ended = false;
    bool has_receiver = false;
    end* sender = nullptr;
  };
  /// A pending operation: if destroyed and started again, it is another one.
  struct pending {
    bool waits = false;
    bool cancelled = false;
    std::uint32_t generation = 0;
    int turn = 0;
    anyio::time_point since{};
  };
  struct end {
    std::variant<anyio::memory_stream, anyio::tcp_stream, anyio::unix_stream> stream;
    bool used = false;
    std::uint32_t epoch = 0;  // how many there were before in this place
    bool open = false;
    bool eof_sent = false;  // or tried to
    bool eof_sure = false;
    anyio::errc end_seen = anyio::errc::ok;
    std::optional<std::uint8_t> out;
    std::optional<std::uint8_t> in;
    pending receives, sends, closes;
    anyio::receive_operation receive;
    anyio::receive_string_operation receive_string;
    anyio::receive_view_operation receive_view;
    anyio::send_operation send;
    anyio::send_eof_operation send_eof;
    anyio::aclose_operation aclose;
    bool sending_bytes = false;
    std::string data;
    std::array<char, 700> room;

    [[nodiscard]] kind what() const noexcept { return static_cast<kind>(stream.index()); }
    anyio::byte_stream& bytes() noexcept {
      return std::visit([](auto& s) -> anyio::byte_stream& { return s; }, stream);
    }
    anyio::socket_stream* socket() noexcept { return what() == memory ? nullptr : bytes().socket(); }
  };

  // At most three pointers, as required of callables of named operations.
  struct received {
    api_program* self;
    end* at;
    std::uint32_t generation;
    void operator()(anyio::result<std::size_t> r) const {
      if (!r) return self->receive_ended(*at, generation, r.error(), {});
      FUZZ_CHECK(*r <= at->room.size());
      self->receive_ended(*at, generation, {}, std::string_view(at->room.data(), *r));
    }
    void operator()(const anyio::result<std::string>& r) const {
      self->receive_ended(*at, generation, r ? anyio::error() : r.error(), r ? *r : std::string_view());
    }
    void operator()(anyio::result<std::string_view> r) const {
      self->receive_ended(*at, generation, r ? anyio::error() : r.error(), r ? *r : std::string_view());
    }
  };
  struct sent {
    api_program* self;
    end* at;
    std::uint32_t generation;
    void operator()(anyio::result<> r) const {
      self->send_ended(*at, generation, r ? anyio::error() : r.error());
    }
  };
  struct closed {
    api_program* self;
    end* at;
    std::uint32_t generation;
    void operator()(anyio::result<> r) const {
      self->aclose_ended(*at, generation, r ? anyio::error() : r.error());
    }
  };
  /// A second operation while one is pending.
  struct refused {
    api_program* self;
    end* at;
    std::uint32_t epoch;
    template <class T>
    void operator()(const anyio::result<T>& r) const {
      self->note(40, r.has_value() ? anyio::errc::ok : r.error().code());
      FUZZ_CHECK(!r.has_value());
      FUZZ_CHECK(r.error() == anyio::errc::busy_resource || r.error() == anyio::errc::closed_resource);
      const bool may_be_closed = !at->open || at->eof_sent || at->epoch != epoch;
      FUZZ_CHECK(r.error() == anyio::errc::busy_resource || may_be_closed);
    }
  };

  struct sleeper {
    anyio::sleep_operation op;
    pending p;
    anyio::time_point due{};
  };
  struct woken {
    api_program* self;
    sleeper* at;
    std::uint32_t generation;
    void operator()(anyio::result<> r) const {
      self->finish(at->p, generation);
      FUZZ_CHECK(r.has_value());
      FUZZ_CHECK(anyio::now() >= at->due);
    }
  };

  template <class Listener, class Stream>
  struct acceptor {
    Listener listener;
    anyio::accept_operation<Stream> op;
    pending p;
    bool open = false;
  };
  using tcp_acceptor = acceptor<anyio::tcp_listener, anyio::tcp_stream>;
  using local_acceptor = acceptor<anyio::unix_listener, anyio::unix_stream>;
  template <class Acceptor>
  struct accepted {
    api_program* self;
    Acceptor* at;
    std::uint32_t generation;
    template <class Stream>
    void operator()(anyio::result<Stream> r) const {
      self->finish(at->p, generation);
      if (r) return self->adopt(std::move(*r));
      self->note(41, r.error().code());
      FUZZ_CHECK(r.error() == anyio::errc::closed_resource);
      FUZZ_CHECK(at->p.cancelled);
    }
  };
  template <class Op>
  struct connector {
    Op op;
    pending p;
  };
  using tcp_connector = connector<decltype(anyio::connect_tcp("", 0))>;
  using local_connector = connector<decltype(anyio::connect_unix(""))>;
  template <class Connector>
  struct connected {
    api_program* self;
    Connector* at;
    std::uint32_t generation;
    template <class Stream>
    void operator()(anyio::result<Stream> r) const {
      self->finish(at->p, generation);
      if (r) return self->adopt(std::move(*r));
      self->note(42, r.error().code());
      FUZZ_CHECK(r.error() == anyio::errc::os_error || r.error() == anyio::errc::name_resolution);
    }
  };

  // --- the model

  void note(unsigned what, anyio::errc code, std::uint64_t more = 0) {
    const anyio::time_point t = anyio::now();
    FUZZ_CHECK(t >= last_);
    last_ = t;
    seen_.add(what);
    seen_.add(static_cast<std::uint64_t>(code));
    seen_.add(more);
    seen_.add(static_cast<std::uint64_t>(t.time_since_epoch().count()));
    if (log_ != nullptr)
      log_("  " + std::to_string(what) + ": " + std::string(anyio::to_string(code)) + ", " +
           std::to_string(more));
  }
  std::uint32_t begin(pending& p) {
    p.waits = true;
    p.cancelled = false;
    p.turn = turn_;
    p.since = anyio::now();
    return ++p.generation;
  }
  void finish(pending& p, std::uint32_t generation) {
    FUZZ_CHECK(p.waits);
    FUZZ_CHECK(p.generation == generation);
    p.waits = false;
  }
  /// Whether it is pending in the stream by now: a new operation may have ended at once, without a report
  /// yet.
  [[nodiscard]] bool waits_really(const pending& p) const noexcept { return p.waits && p.turn != turn_; }
  static void withdraw(pending& p) {
    p.waits = false;
    ++p.generation;
  }
  /// From now on the other end may find this connection broken.
  void disturb(end& e) {
    may_break_[e.what()] = true;
    if (e.out) flows_[*e.out].ended = true;
  }
  void check_failure(const end& e, const pending& p, const anyio::error& error) {
    switch (error.code()) {
      case anyio::errc::closed_resource: FUZZ_CHECK(!e.open); break;
      case anyio::errc::cancelled: FUZZ_CHECK(p.cancelled); break;
      case anyio::errc::broken_resource:
        FUZZ_CHECK(e.open);
        FUZZ_CHECK(may_break_[e.what()] || (may_reset_ && e.what() != memory));
        break;
      default: broken("an impossible error", __FILE__, __LINE__);
    }
  }
  void receive_ended(end& e, std::uint32_t generation, const anyio::error& error, std::string_view bytes) {
    finish(e.receives, generation);
    note(1, error.code(), bytes.size());
    if (error != anyio::errc::ok) {
      if (error == anyio::errc::end_of_stream) {
        FUZZ_CHECK(e.open);
        if (e.in) {
          FUZZ_CHECK(flows_[*e.in].ended);
          FUZZ_CHECK(flows_[*e.in].received == taken(flows_[*e.in]));
        }
      } else {
        check_failure(e, e.receives, error);
      }
      const bool final = error == anyio::errc::end_of_stream || error == anyio::errc::broken_resource;
      if (final) {
        FUZZ_CHECK(e.end_seen == anyio::errc::ok || e.end_seen == error.code());
        e.end_seen = error.code();
      }
      return;
    }
    FUZZ_CHECK(!bytes.empty());
    FUZZ_CHECK(e.end_seen == anyio::errc::ok);
    if (!e.in) {
      e.in = static_cast<std::uint8_t>(bytes.front());
      FUZZ_CHECK(!std::exchange(flows_[*e.in].has_receiver, true));
    }
    flow& f = flows_[*e.in];
    FUZZ_CHECK(is_payload(*e.in, f.received, bytes));
    f.received += bytes.size();
    FUZZ_CHECK(f.received <= taken(f));
  }
  /// The bytes of a flow that the stream has accepted up to now.
  [[nodiscard]] static std::uint64_t taken(const flow& f) {
    const bool sends = f.sender != nullptr && f.sender->sending_bytes;
    return f.sent + (sends ? f.sender->send.sent() : 0);
  }
  void count_sent(end& e) {
    if (!std::exchange(e.sending_bytes, false)) return;
    flow& f = flows_[*e.out];
    FUZZ_CHECK(e.send.sent() <= e.data.size());
    f.sent += e.send.sent();
    FUZZ_CHECK(f.received <= f.sent);
  }
  void send_ended(end& e, std::uint32_t generation, const anyio::error& error) {
    finish(e.sends, generation);
    const bool of_bytes = e.sending_bytes;
    note(of_bytes ? 2 : 3, error.code(), of_bytes ? e.send.sent() : 0);
    const bool after_eof = of_bytes && e.eof_sent;
    if (of_bytes && error == anyio::errc::ok) {
      FUZZ_CHECK(e.send.sent() == e.data.size());
      FUZZ_CHECK(!e.eof_sure);
    }
    count_sent(e);
    if (error == anyio::errc::ok) {
      e.eof_sure = e.eof_sure || !of_bytes;
      return;
    }
    if (after_eof && error == anyio::errc::closed_resource) return;
    check_failure(e, e.sends, error);
  }
  void aclose_ended(end& e, std::uint32_t generation, const anyio::error& error) {
    finish(e.closes, generation);
    note(4, error.code());
    const bool cancelled = e.closes.cancelled && error == anyio::errc::cancelled;
    FUZZ_CHECK(cancelled || error == anyio::errc::ok || error == anyio::errc::closed_resource);
    FUZZ_CHECK(anyio::now() - e.closes.since <= std::chrono::seconds(1));
  }

  // --- the calls

  end* free_end() {
    for (end& e : ends_)
      if (!e.used) return &e;
    return nullptr;
  }
  end& chosen_end() { return ends_[in_.pick(ends_.size())]; }
  template <class Stream>
  void adopt(Stream&& s) {
    note(43, anyio::errc::ok);
    FUZZ_CHECK(static_cast<bool>(s));
    end* const e = free_end();
    if (e == nullptr) {
      may_break_[std::is_same_v<Stream, anyio::tcp_stream> ? tcp : local] = true;
      return s.close();
    }
    e->stream = std::move(s);
    e->used = e->open = true;
  }
  void start_receive(end& e) {
    const std::size_t how = in_.pick(3);
    const std::size_t most = 1 + in_.length(e.room.size() - 1);
    if (!e.used) return;
    if (e.receives.waits || e.closes.waits) {
      if (waits_really(e.receives)) e.bytes().receive().start(refused{this, &e, e.epoch});
      return;
    }
    const received done{this, &e, begin(e.receives)};
    if (how == 0) {
      e.receive = e.bytes().receive(anyio::mutable_buffer(e.room.data(), most));
      e.receive.start(done);
    } else if (how == 1) {
      e.receive_string = e.bytes().receive(most);
      e.receive_string.start(done);
    } else {
      e.receive_view = e.bytes().receive_view();
      e.receive_view.start(done);
    }
  }
  void start_send(end& e) {
    const std::size_t size = in_.length(40000);
    if (!e.used) return;
    if (e.sends.waits) {
      if (waits_really(e.sends)) e.bytes().send("x").start(refused{this, &e, e.epoch});
      return;
    }
    if (!e.out) {
      if (next_flow_ == flows_.size()) return;
      e.out = static_cast<std::uint8_t>(next_flow_++);
      flows_[*e.out].sender = &e;
    }
    flow& f = flows_[*e.out];
    e.data = payload(*e.out, f.sent, size);
    e.sending_bytes = true;
    e.send = e.bytes().send(anyio::const_buffer(e.data));
    e.send.start(sent{this, &e, begin(e.sends)});
  }
  void start_eof(end& e) {
    if (!e.used) return;
    if (e.sends.waits) {
      if (waits_really(e.sends)) e.bytes().send_eof().start(refused{this, &e, e.epoch});
      return;
    }
    e.send_eof = e.bytes().send_eof();
    e.eof_sent = true;
    if (e.out) flows_[*e.out].ended = true;
    e.send_eof.start(sent{this, &e, begin(e.sends)});
  }
  void start_aclose(end& e) {
    if (!e.used || e.closes.waits) return;
    e.open = false;
    disturb(e);
    e.aclose = e.bytes().aclose();
    e.aclose.start(closed{this, &e, begin(e.closes)});
  }
  void close(end& e) {
    if (!e.used) return;
    e.open = false;
    disturb(e);
    e.bytes().close();
    FUZZ_CHECK(!e.bytes());
  }
  void withdraw_receive(end& e) {
    withdraw(e.receives);
    e.receive = {};
    e.receive_string = {};
    e.receive_view = {};
  }
  void withdraw_send(end& e) {
    withdraw(e.sends);
    e.send_eof = {};
    count_sent(e);
    e.send = {};
  }
  void withdraw_aclose(end& e) {  // which closes at once then
    withdraw(e.closes);
    e.aclose = {};
  }
  void cancel(end& e) {
    if (!e.used || e.socket() == nullptr) return;
    e.receives.cancelled = e.sends.cancelled = e.closes.cancelled = true;
    e.socket()->cancel();
  }
  /// All of it is destroyed, pending operations included.
  void destroy(end& e) {
    if (!e.used) return;
    const std::size_t order = in_.pick(2);
    if (order == 1) {
      withdraw_receive(e);
      withdraw_send(e);
    }
    disturb(e);
    e.open = false;
    e.stream = anyio::memory_stream();
    withdraw_receive(e);
    withdraw_send(e);
    withdraw_aclose(e);
    if (e.out) flows_[*e.out].sender = nullptr;
    const std::uint32_t generations[] = {e.receives.generation, e.sends.generation, e.closes.generation,
                                         e.epoch};
    std::destroy_at(&e);
    std::construct_at(&e);
    e.receives.generation = generations[0];
    e.sends.generation = generations[1];
    e.closes.generation = generations[2];
    e.epoch = generations[3] + 1;
  }
  void move(end& e) {
    if (!e.used) return;
    auto elsewhere = std::move(e.stream);
    FUZZ_CHECK(!e.bytes());
    e.stream = std::move(elsewhere);
    FUZZ_CHECK(static_cast<bool>(e.bytes()) == e.open);
  }
  void make_pair() {
    const std::size_t capacity = in_.length(70000);
    const bool sockets = in_.flag();
    end* const a = free_end();
    if (a == nullptr) return;
    a->used = true;
    end* const b = free_end();
    a->used = false;
    if (b == nullptr) return;
    if (sockets) {
      auto made = anyio::create_unix_stream_pair();
      note(44, made ? anyio::errc::ok : made.error().code());
      if (!made) {
        FUZZ_CHECK(made.error() == anyio::errc::os_error);
        return;
      }
      a->stream = std::move(made->first);
      b->stream = std::move(made->second);
    } else {
      auto made = anyio::create_memory_stream_pair(capacity);
      a->stream = std::move(made.first);
      b->stream = std::move(made.second);
    }
    a->used = a->open = b->used = b->open = true;
  }

  static anyio::ip_endpoint place(std::size_t which) {
    using anyio::ip_address;
    return {which == 0 ? ip_address::loopback_v4() : ip_address::loopback_v6(),
            static_cast<std::uint16_t>(7000 + which)};
  }
  void listen() {
    const std::size_t which = in_.pick(3);
    const int backlog = static_cast<int>(in_.pick(4));
    if (which == 2) {
      if (local_.open) return;
      may_break_[local] = true;  // a connection tests whether its path is in use
      anyio::create_unix_listener("/socket", {.backlog = backlog, .unlink_on_close = in_.flag()})
          .start([this](anyio::result<anyio::unix_listener> r) {
            if (r && !local_.open) {
              local_.listener = std::move(*r);
              local_.open = true;
            }
          });
      return;
    }
    tcp_acceptor& a = tcp_[which];
    if (a.open) return;
    auto made = anyio::tcp_listener::open(place(which), {.backlog = backlog});
    note(45, made ? anyio::errc::ok : made.error().code());
    if (!made) {
      FUZZ_CHECK(made.error() == anyio::errc::os_error);
      return;
    }
    a.listener = std::move(*made);
    a.open = true;
  }
  template <class Acceptor>
  void accept(Acceptor& a) {
    if (a.p.waits || !a.open) return;
    a.op = a.listener.accept();
    a.op.start(accepted<Acceptor>{this, &a, begin(a.p)});
  }
  template <class Acceptor>
  void stop(Acceptor& a, kind k) {
    if (!a.open) return;
    may_break_[k] = true;  // for those that it has not accepted
    a.open = false;
    a.p.cancelled = true;
    if (in_.flag()) {
      withdraw(a.p);
      a.op = {};
    }
    a.listener.close();
  }
  void connect() {
    const std::size_t which = in_.pick(4);
    if (which == 3) {
      local_connector& c = connecting_local_;
      if (c.p.waits) return;
      c.op = anyio::connect_unix("/socket");
      return c.op.start(connected<local_connector>{this, &c, begin(c.p)});
    }
    tcp_connector& c = connecting_[which & 1];
    if (c.p.waits) return;
    if (which == 2) {
      c.op = anyio::connect_tcp("localhost", 7000);
    } else {
      c.op = anyio::connect_tcp(place(which));
    }
    c.op.start(connected<tcp_connector>{this, &c, begin(c.p)});
  }
  void withdraw_connect() {
    const std::size_t which = in_.pick(3);
    if (which == 2) {
      may_break_[local] = true;
      withdraw(connecting_local_.p);
      connecting_local_.op = {};
    } else {
      may_break_[tcp] = true;
      withdraw(connecting_[which].p);
      connecting_[which].op = {};
    }
  }
  void start_sleep() {
    sleeper& s = sleepers_[in_.pick(sleepers_.size())];
    std::chrono::microseconds length(in_.number(2));
    if (in_.flag()) length *= 1000;
    withdraw(s.p);
    s.due = anyio::now() + length;
    s.op = anyio::sleep(length);
    s.op.start(woken{this, &s, begin(s.p)});
  }
  void stop_sleep() {
    sleeper& s = sleepers_[in_.pick(sleepers_.size())];
    withdraw(s.p);
    s.op = {};
  }
  /// Starts later, waits, and ends one way or the other.
  struct presence {
    explicit presence(int& count) noexcept : count_(count) { ++count_; }
    presence(const presence&) = delete;
    presence& operator=(const presence&) = delete;
    ~presence() { --count_; }
    int& count_;
  };
  anyio::task<> child(std::chrono::microseconds length, std::size_t depth) {
    const presence here(alive_);
    const anyio::time_point due = anyio::now() + length;
    co_await anyio::sleep(length);
    FUZZ_CHECK(anyio::now() >= due);
    note(50, anyio::errc::ok, depth);
    if (depth != 0) co_await anyio::move_on_after(length / 2, child(length, depth - 1));
  }
  void spawn() {
    const auto length = std::chrono::microseconds(in_.number(2));
    const std::size_t depth = in_.pick(3);
    if (children_) children_->start_soon(child(length, depth));
  }
  void cancel_children() {
    if (!children_) return;
    children_->cancel();
    FUZZ_CHECK(alive_ == 0);
  }

  /// One call. Returns how long to wait after it, -1 for not at all.
  int step() {
    switch (in_.byte() % 24) {
      case 0: return static_cast<int>(in_.byte());
      case 1: make_pair(); break;
      case 2: listen(); break;
      case 3: accept(tcp_[0]); break;
      case 4: accept(tcp_[1]); break;
      case 5: accept(local_); break;
      case 6: connect(); break;
      case 7: withdraw_connect(); break;
      case 8: in_.flag() ? stop(tcp_[0], tcp) : stop(tcp_[1], tcp); break;
      case 9: stop(local_, local); break;
      case 10:
      case 11: start_send(chosen_end()); break;
      case 12:
      case 13: start_receive(chosen_end()); break;
      case 14: start_eof(chosen_end()); break;
      case 15: start_aclose(chosen_end()); break;
      case 16: close(chosen_end()); break;
      case 17: cancel(chosen_end()); break;
      case 18: move(chosen_end()); break;
      case 19: destroy(chosen_end()); break;
      case 20:
        if (in_.flag()) {
          withdraw_receive(chosen_end());
        } else {
          withdraw_send(chosen_end());
        }
        break;
      case 21: in_.flag() ? start_sleep() : stop_sleep(); break;
      case 22: spawn(); break;
      case 23: cancel_children(); break;
    }
    return -1;
  }

  input in_;
  bool may_reset_;
  bool may_break_[kinds] = {};
  anyio::time_point last_ = anyio::time_point::min();
  observed seen_;
  void (*log_)(std::string_view) = new_options().log;
  std::size_t next_flow_ = 1;
  int alive_ = 0;
  int turn_ = 0;
  std::array<flow, 256> flows_{};
  std::array<end, 6> ends_{};
  std::array<sleeper, 3> sleepers_{};
  tcp_acceptor tcp_[2];
  local_acceptor local_;
  tcp_connector connecting_[2];
  local_connector connecting_local_;
  std::optional<anyio::task_group> children_;
};

inline anyio::task<> api_program::run() {
  children_.emplace();
  for (int calls = 0; calls < 250 && !in_.empty(); ++calls) {
    const int wait = step();
    if (wait < 0) continue;
    co_await anyio::sleep(std::chrono::microseconds(wait * wait * wait / 4));
    ++turn_;
  }
  co_await anyio::sleep(std::chrono::milliseconds(1));
  anyio::sim::heal();
  for (end& e : ends_) close(e);
  stop(tcp_[0], tcp);
  stop(tcp_[1], tcp);
  stop(local_, local);
  cancel_children();
  co_await anyio::sleep(std::chrono::seconds(2));
  for (end& e : ends_) FUZZ_CHECK(!e.receives.waits && !e.sends.waits && !e.closes.waits);
  FUZZ_CHECK(!tcp_[0].p.waits && !tcp_[1].p.waits && !local_.p.waits);
  children_.reset();
}

/// One run of the program in the input; its observations are added to `seen`.
inline anyio::sim::report run_api_program(const std::uint8_t* data, std::size_t size, std::uint64_t& seen) {
  input in(data, size);
  anyio::sim::options o = new_options();
  const unsigned profile = in.byte();
  o.profile = static_cast<anyio::sim::profile>(profile < 128 ? 0 : profile % 3);
  o.faults = faults_of(in);
  o.choices = in.take_tail(in.byte());
  o.step_limit = 100'000;
  const auto program = std::make_unique<api_program>(in, o.faults.reset > 0);
  anyio::sim::report r = anyio::sim::run(o, program->run());
  seen = program->seen();
  return r;
}

}  // namespace fuzz
