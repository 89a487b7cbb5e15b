// Somebody else's protocol in a simulation: a server and a client of HTTP/2 by libnghttp2, over TCP with
// every combination of faults. A stream that ends without an error has all bytes of its own, in order;
// nothing hangs, nothing stays open, and a seed repeats its run.
//
//   g++ -std=c++20 -O1 -pthread -I. tests/foreign/nghttp2.cpp -lnghttp2 -o nghttp2 && ./nghttp2 [SEEDS]
//   ./nghttp2 naive     # the same with a driver that does not receive while it sends: finds its deadlock
#define ANYIO_NET_SIM
#include "drive.hpp"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace {

using namespace std::chrono_literals;
using anyio::task;
namespace sim = anyio::sim;

int broken = 0;  // promises

void check(bool holds, const char* what, int line) {
  if (holds) return;
  ++broken;
  std::printf("line %d: does not hold: %s\n", line, what);
}
#define HOLDS(x) check(static_cast<bool>(x), #x, __LINE__)

/// A body: what is left of it to send.
struct body {
  std::string_view left;
};

ssize_t read_body(nghttp2_session*, std::int32_t, std::uint8_t* into, std::size_t room, std::uint32_t* flags,
                  nghttp2_data_source* source, void*) {
  std::string_view& left = static_cast<body*>(source->ptr)->left;
  const std::size_t n = std::min({left.size(), room, 1 + sim::draw(3000)});
  std::copy_n(left.data(), n, into);
  left.remove_prefix(n);
  if (left.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(n);
}

/// What both ends have: a session of the library, and the bytes of its streams.
class engine {
 public:
  explicit engine(bool server) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* bytes,
                      std::size_t size, void* self) {
          static_cast<engine*>(self)->streams_[id].got.append(reinterpret_cast<const char*>(bytes), size);
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          static_cast<engine*>(self)->received(*frame);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, std::int32_t id, std::uint32_t code, void* self) {
          static_cast<engine*>(self)->closed(id, code);
          return 0;
        });
    if (server)
      nghttp2_session_server_new(&session_, callbacks, this);
    else
      nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    // Small windows, so that the flow control of the protocol matters, or large ones, so that that of TCP
    // does.
    const bool large = sim::draw(2) == 1;
    const std::size_t window = large ? 1 << 20 : 1 + sim::draw(100'000);
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<std::uint32_t>(window)}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 1);
    if (large) nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 1 << 20);
  }
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  virtual ~engine() { nghttp2_session_del(session_); }

  std::string pull() {
    std::string out;
    const std::uint8_t* bytes = nullptr;
    while (out.size() < 16'384) {
      const ssize_t n = nghttp2_session_mem_send(session_, &bytes);
      if (n <= 0) break;
      out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
    }
    return out;
  }
  void feed(std::string_view bytes) {
    const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
    if (nghttp2_session_mem_recv(session_, data, bytes.size()) < 0) failed_ = true;
  }
  bool done() const {
    return failed_ || (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0);
  }

 protected:
  struct stream {
    std::string got;
    body sending;
  };
  virtual void received(const nghttp2_frame& frame) = 0;
  virtual void closed(std::int32_t id, std::uint32_t code) = 0;

  nghttp2_session* session_ = nullptr;
  std::map<std::int32_t, stream> streams_;
  bool failed_ = false;
};

/// Answers each request with its own body, when all of it is there.
class server final : public engine {
 public:
  server() : engine(true) {}

 private:
  void received(const nghttp2_frame& frame) override {
    const bool of_request = frame.hd.type == NGHTTP2_DATA || frame.hd.type == NGHTTP2_HEADERS;
    if (!of_request || (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return;
    stream& s = streams_[frame.hd.stream_id];
    s.sending.left = s.got;
    nghttp2_data_provider provider{};
    provider.source.ptr = &s.sending;
    provider.read_callback = read_body;
    std::uint8_t name[] = ":status";
    std::uint8_t value[] = "200";
    const nghttp2_nv fields[] = {{name, value, 7, 3, NGHTTP2_NV_FLAG_NONE}};
    nghttp2_submit_response(session_, frame.hd.stream_id, fields, 1, &provider);
  }
  void closed(std::int32_t id, std::uint32_t) override { streams_.erase(id); }
};

int whole = 0, given_up = 0, cut_off = 0;  // requests

/// Sends some requests at once, of which it gives up some.
class client final : public engine {
 public:
  explicit client(std::size_t requests) : engine(false), open_(requests) {
    for (std::size_t i = 0; i < requests; ++i) {
      // The bytes tell the request, so that a mixture would be found.
      std::string text = sim::draw_bytes(100) + static_cast<char>('0' + i);
      while (sim::draw(8) != 0 && text.size() < 200'000) text += text + static_cast<char>('a' + i);
      texts_.push_back({std::move(text), {}});
      texts_.back().second.left = texts_.back().first;
      request(texts_.back());
    }
    if (requests == 0) nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  }
  ~client() override { cut_off += static_cast<int>(open_); }

  void give_one_up() {
    if (!asked_.empty())
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, asked_.begin()->first, NGHTTP2_CANCEL);
  }
  bool answered() const { return open_ == 0; }

 private:
  using text_and_body = std::pair<std::string, body>;
  void request(text_and_body& t) {
    static constexpr std::pair<std::string_view, std::string_view> head[] = {
        {":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "echo.example"}};
    nghttp2_nv fields[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const auto bytes = [](std::string_view s) {
        return reinterpret_cast<std::uint8_t*>(const_cast<char*>(s.data()));
      };
      fields[i] = {bytes(head[i].first), bytes(head[i].second), head[i].first.size(), head[i].second.size(),
                   NGHTTP2_NV_FLAG_NONE};
    }
    nghttp2_data_provider provider{};
    provider.source.ptr = &t.second;
    provider.read_callback = read_body;
    const std::int32_t id = nghttp2_submit_request(session_, nullptr, fields, 4, &provider, nullptr);
    HOLDS(id > 0);
    asked_[id] = &t;
  }
  void received(const nghttp2_frame&) override {}
  void closed(std::int32_t id, std::uint32_t code) override {
    const std::string& sent = asked_.at(id)->first;
    const std::string& got = streams_[id].got;
    HOLDS(sent.starts_with(got));
    if (code == NGHTTP2_NO_ERROR) HOLDS(got == sent);
    ++(code == NGHTTP2_NO_ERROR ? whole : given_up);
    asked_.erase(id);
    if (--open_ == 0) nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  }

  std::size_t open_;
  std::list<text_and_body> texts_;
  std::map<std::int32_t, text_and_body*> asked_;
};

bool naive = false;

/// What looks right and is not: when both ends have more to send than the connection holds, neither receives.
template <class Engine>
task<> drive_naively(anyio::byte_stream& s, Engine& engine) {
  for (;;) {
    for (std::string out = engine.pull(); !out.empty(); out = engine.pull()) co_await s.send(out);
    if (engine.done()) break;
    engine.feed(co_await s.receive_view());
  }
  co_await s.aclose();
}

task<> serve(anyio::tcp_stream s) {
  server e;
  anyio::event fed;
  if (naive) co_return co_await drive_naively(s, e);
  co_await drive(s, e, fed);
}

task<> give_up_some(client& c, anyio::event& fed) {
  for (std::size_t n = sim::draw(3); n != 0; --n) {
    co_await anyio::sleep(std::chrono::milliseconds(sim::draw(50)));
    c.give_one_up();
    fed.set();
  }
}

/// Whether all requests were answered, or given up by this end.
task<bool> converse(std::uint16_t port) {
  auto s = co_await anyio::connect_tcp("127.0.0.1", port);
  client c(sim::draw(5));
  anyio::event fed;
  anyio::task_group group;
  if (naive) {
    co_await drive_naively(s, c);
  } else {
    group.start_soon(give_up_some(c, fed));
    co_await drive(s, c, fed);
  }
  co_return c.answered();
}

/// Bytes that are no HTTP/2: the server must not mind.
task<> talk_nonsense(std::uint16_t port) {
  auto s = co_await anyio::connect_tcp("127.0.0.1", port);
  std::string text = sim::draw(2) == 0 ? "" : "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  text += sim::draw_bytes(300);
  co_await s.send(text);
  co_await s.send_eof();
  while (co_await as_result(s.receive())) {
  }
}

sim::faults faults_of(std::uint64_t seed) {
  sim::faults f;
  if ((seed & 1) != 0) f.short_io = 0.3;
  if ((seed & 2) != 0) f.would_block = 0.3;
  if ((seed & 4) != 0) f.interrupted = 0.2;
  if ((seed & 8) != 0) f.reset = 0.005;
  if ((seed & 16) != 0) f.drop = 0.05;
  if ((seed & 32) != 0) f.latency_max = 20ms;
  return f;
}

task<> program(std::uint64_t seed) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group servers;
  servers.start_soon(listener.serve(serve, [](const anyio::error&) {}));
  const std::uint16_t port = listener.local_port();
  sim::set_faults(faults_of(seed));
  const auto r = co_await as_result(anyio::when_all(converse(port), converse(port), talk_nonsense(port)));
  if (faults_of(seed).reset == 0) HOLDS(r && std::get<0>(*r) && std::get<1>(*r));
  sim::heal();
  HOLDS(co_await converse(port));
  listener.close();
  co_await servers.join();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  naive = word == "naive";
  const std::uint64_t seeds = naive || word.empty() ? 1000 : std::strtoull(argv[1], nullptr, 10);
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    sim::options o;
    o.seed = seed;
    o.time_limit = 1h;
    o.profile = static_cast<sim::profile>(seed % 3);
    const sim::report r = sim::run(o, [seed] { return program(seed); });
    if (naive && r.deadlock) {
      std::printf("seed %llu: a deadlock\n%s", static_cast<unsigned long long>(seed), r.dump.c_str());
      return 0;
    }
    if (!r.ok() || broken != 0) {
      std::printf("seed %llu: %s\n%s", static_cast<unsigned long long>(seed),
                  r.message().substr(0, 200).c_str(), r.dump.c_str());
      return 1;
    }
    if (seed % 8 == 0 && sim::run(o, [seed] { return program(seed); }).trace_hash != r.trace_hash) {
      std::printf("seed %llu is not repeated\n", static_cast<unsigned long long>(seed));
      return 1;
    }
  }
  std::printf("%llu seeds: %d whole, %d given up, %d cut off\n", static_cast<unsigned long long>(seeds),
              whole, given_up, cut_off);
  return naive || whole == 0 || given_up == 0 || (seeds >= 16 && cut_off == 0) ? 1 : 0;
}
