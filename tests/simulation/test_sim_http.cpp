// The HTTP client and the HTTP server of the examples on a simulated network, with faults: the client with
// the server, the client with a server that answers in every form and stops anywhere, and the server with a
// client that does not wait for answers. A page is whole or there is an error; answers come in order; nothing
// hangs.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/support/http_fetch.hpp"
#include "examples/support/http_serve.hpp"
#include "support/sim_seeds.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::task;
using anyio::tcp_stream;
namespace sim = anyio::sim;

/// A file in memory for the client to write to.
class memory_file {
 public:
  memory_file() : file_(::open_memstream(&text_, &size_)) {}
  memory_file(const memory_file&) = delete;
  memory_file& operator=(const memory_file&) = delete;
  ~memory_file() {
    std::fclose(file_);
    std::free(text_);
  }
  std::FILE* file() { return file_; }
  std::string_view text() {
    std::fflush(file_);
    return {text_, size_};
  }

 private:
  char* text_ = nullptr;
  std::size_t size_ = 0;
  std::FILE* file_;
};

/// Pages of the run's own. The time is none, so that a run can be repeated.
class site {
 public:
  struct file {
    std::string_view text;
    std::size_t size = 0;
    std::string_view type;
  };
  site() {
    for (std::string& page : pages_) page = sim::draw_bytes(2000);
  }
  std::optional<file> open(const std::string& path) {
    if (path.size() != 1 || path[0] < '0' || path[0] >= '0' + static_cast<int>(pages_.size())) return {};
    const std::string& text = page(static_cast<std::size_t>(path[0] - '0'));
    return file{text, text.size(), "text/plain"};
  }
  task<> send(tcp_stream& client, const file& f) { co_await client.send(f.text); }
  std::time_t time() { return 0; }

  const std::string& page(std::size_t i) const { return pages_[i]; }

 private:
  std::array<std::string, 4> pages_;
};

int whole, missing, failed;  // pages

/// Checks what came of fetching a page, of which so much is written.
void judge(const anyio::result<std::string>& r, std::string_view written, std::string_view page, bool there,
           bool may_fail) {
  CHECK(page.starts_with(written));
  if (r && r->empty()) {
    CHECK(there);
    CHECK((written == page));
    ++whole;
    return;
  }
  if (!r) {
    CHECK(r.error() != errc::invalid_argument);
    CHECK(r.error() != errc::busy_resource);
    CHECK(r.error() != errc::closed_resource);
  }
  ++(there ? failed : missing);
  if (!may_fail) CHECK_MESSAGE(!there, (r ? *r : r.error().message()));
}

// --- the client with the server

task<> fetch_page(const site& s, bool may_fail) {
  const std::size_t i = sim::draw(5);  // the last one is missing
  http::wanted w;
  w.place = http::parse_url("http://www.example/" + std::to_string(i)).value();
  memory_file out;
  const auto r = co_await as_result(http::fetch(w, out.file()));
  const bool there = i < 4;
  judge(r, out.text(), there ? std::string_view(s.page(i)) : "", there, may_fail);
  if (!there && r) CHECK((*r == "the server answered HTTP/1.1 404 Not Found"));
}

// --- the client with a server that answers in every form

/// What the server has sent of a page, by the host in the request: each page has a host of its own.
struct truth {
  std::string page;
  bool there = true;  // an answer whose page is whole
};
using truths = std::map<std::string, truth, std::less<>>;

/// An answer of a form that is drawn. It may stop anywhere, and then is no page, whatever the client has of
/// it.
task<> answer_oddly(tcp_stream s, truths& all) {
  anyio::buffered_stream in(s);
  const std::string head = co_await in.receive_until("\r\n\r\n", 1000);
  const std::size_t at_host = head.find("Host: ") + 6;
  const std::string host = head.substr(at_host, head.find("\r\n", at_host) - at_host);
  truth& t = all[host];
  std::string text;
  for (std::size_t interim = sim::draw(3); interim != 0; --interim) text += "HTTP/1.1 100 Continue\r\n\r\n";
  const bool again = head.find("GET /start ") != head.npos && sim::draw(2) == 1;
  bool until_close = false;
  if (again) {
    const std::string places[] = {"/page", "page", "http://" + host + "/page", "//" + host + "/page",
                                  "?again"};
    text += "HTTP/1.1 302 Found\r\nLocation: ";
    text.append(places[sim::draw(5)]).append("\r\nContent-Length: 3\r\n\r\nno\n");
  } else {
    t.page = sim::draw_bytes(500);
    text += "HTTP/1.1 200 OK\r\n";
    const std::size_t form = sim::draw(4);
    if (form == 0) {
      text += "Content-Length: " + std::to_string(t.page.size()) + "\r\n\r\n" + t.page;
    } else if (form == 1) {
      text += "\r\n" + t.page;
      until_close = true;
    } else {
      text += "Transfer-Encoding: chunked\r\n\r\n";
      for (std::size_t at = 0; at < t.page.size();) {
        const std::string_view chunk = std::string_view(t.page).substr(at, 1 + sim::draw(200));
        std::array<char, 32> line;
        std::snprintf(line.data(), line.size(), "%zx%s\r\n", chunk.size(), form == 2 ? "" : " ; a=b");
        text.append(line.data()).append(chunk).append("\r\n");
        at += chunk.size();
      }
      text += form == 2 ? "0\r\n\r\n" : "0\r\nTrailer: x\r\n\r\n";
    }
  }
  const bool cut = !again && sim::draw(4) == 1;
  if (cut) {
    // Without a length only a reset can say that it is not the end.
    t.there = false;
    text.resize(sim::draw(text.size()));
  }
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t piece = 1 + sim::draw(300);
    co_await s.send(rest.substr(0, piece));
    rest.remove_prefix(std::min(piece, rest.size()));
    if (sim::draw(2) == 1) co_await anyio::sleep(std::chrono::milliseconds(sim::draw(100)));
  }
  if (cut && until_close) co_return s.abort();
  co_await s.aclose();
}

task<> fetch_oddly(truths& all, bool may_fail) {
  const std::string name = "odd" + std::to_string(all.size()) + ".example";
  const anyio::ip_address there[] = {anyio::ip_address::parse("10.0.0.2").value()};
  sim::set_name(name, there);
  truth& t = all[name + ":8080"];
  http::wanted w;
  w.place = http::parse_url("http://" + name + ":8080/start").value();
  memory_file out;
  const auto r = co_await as_result(http::fetch(w, out.file()));
  judge(r, out.text(), t.page, t.there, may_fail);
}

// --- the server with a client that does not wait

struct expected {
  int status = 200;
  std::string body;
  std::size_t size = 0;
  bool last = false;
};

/// A request, and what must come of it.
std::pair<std::string, expected> draw_request(const site& s) {
  const std::size_t i = sim::draw(4);
  const std::string path = "/" + std::to_string(i);
  const std::string host = "Host: www.example\r\n";
  expected e;
  e.body = s.page(i);
  std::string text;
  switch (sim::draw(9)) {
    default: text = "GET " + path + " HTTP/1.1\r\n" + host + "\r\n"; break;
    case 3:
      text = "HEAD " + path + " HTTP/1.1\r\n" + host + "\r\n";
      e.size = e.body.size();
      e.body.clear();
      return {text, e};
    case 4:
      text = "GET /none HTTP/1.1\r\n" + host + "\r\n";
      e = {404, "Not Found\n", 0, false};
      break;
    case 5: {
      const std::string body = sim::draw_bytes(600);
      text = "POST " + path + " HTTP/1.1\r\n" + host + "Content-Length: " + std::to_string(body.size()) +
             "\r\n\r\n" + body;
      e = {405, "Method Not Allowed\n", 0, false};
      break;
    }
    case 6:
      text = "GET " + path + " HTTP/1.0\r\n\r\n";
      e.last = true;
      break;
    case 7:
      text = "GET " + path + " HTTP/1.1\r\nno field\r\n\r\n";
      e = {400, "Bad Request\n", 0, true};
      break;
    case 8:
      text = "GET " + path + " HTTP/1.1\r\nLong: " + std::string(20000, 'x') + "\r\n\r\n";
      e = {431, "Request Header Fields Too Large\n", 0, true};
      break;
  }
  e.size = e.body.size();
  return {text, e};
}

task<> send_in_pieces(tcp_stream& s, const std::string& text) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t piece = 1 + sim::draw(4000);
    co_await s.send(rest.substr(0, piece));
    rest.remove_prefix(std::min(piece, rest.size()));
    if (sim::draw(4) == 1) co_await anyio::sleep(std::chrono::milliseconds(sim::draw(100)));
  }
  co_await s.send_eof();
}

task<> receive_answers(anyio::buffered_stream& in, const std::vector<expected>& all, std::size_t& got) {
  for (const expected& e : all) {
    http::answer a;
    const char* const wrong = a.read(co_await in.receive_until("\r\n\r\n", 10000));
    CHECK(wrong == nullptr);
    CHECK(a.status() == e.status);
    CHECK(a.body_size() == e.size);
    CHECK(a.keeps_connection() == !e.last);
    const std::string body = co_await in.receive_exactly(e.body.size());
    CHECK((body == e.body));
    ++got;
  }
  const auto more = co_await as_result(in.receive());
  CHECK(!more.has_value());
}

task<> pipeline(const site& s, bool may_fail) {
  std::string text;
  std::vector<expected> all;
  for (std::size_t left = 1 + sim::draw(6); left != 0; --left) {
    auto [request, e] = draw_request(s);
    text += request;
    all.push_back(std::move(e));
    if (all.back().last) break;
  }
  std::size_t got = 0;
  const auto r = co_await as_result(
      [](const std::string& sent, const std::vector<expected>& wanted, std::size_t& count) -> task<> {
        tcp_stream stream = co_await anyio::connect_tcp("www.example", 80);
        anyio::buffered_stream in(stream);
        // With a limit: an end that the server sent may be lost on a dead link.
        co_await anyio::fail_after(
            10min, anyio::when_all(send_in_pieces(stream, sent), receive_answers(in, wanted, count)));
      }(text, all, got));
  CHECK(got <= all.size());
  if (may_fail) co_return;
  CHECK_MESSAGE(r.has_value(), r.error().message());
  CHECK(got == all.size());
}

// --- the program

task<anyio::tcp_listener> listening(const char* at, std::uint16_t port) {
  for (;;) {
    auto made = anyio::tcp_listener::open({anyio::ip_address::parse(at).value(), port});
    if (made) co_return std::move(*made);
    co_await anyio::sleep(1ms);
  }
}

/// The way to or from the server is dead for some seconds, again and again.
task<> cut_off_now_and_then(anyio::ip_address server) {
  const anyio::ip_address here = anyio::ip_address::loopback_v4();
  for (;;) {
    co_await anyio::sleep(std::chrono::milliseconds(sim::draw(200)));
    sim::faults dead;
    dead.drop = 1;
    const bool answers = sim::draw(2) == 1;
    sim::set_link(answers ? server : here, answers ? here : server, dead);
    co_await anyio::sleep(std::chrono::seconds(sim::draw(60)));
    sim::set_link(here, server, {});
    sim::set_link(server, here, {});
  }
}

task<> client(const site& s, truths& t, bool may_fail) {
  switch (sim::draw(3)) {
    case 0: co_await fetch_page(s, may_fail); break;
    case 1: co_await fetch_oddly(t, may_fail); break;
    case 2: co_await pipeline(s, may_fail); break;
  }
}

task<> http_program(std::uint64_t seed) {
  const anyio::ip_address www[] = {anyio::ip_address::parse("10.0.0.1").value()};
  sim::set_name("www.example", www);
  site s;
  truths t;
  const http::server<site> example(s);
  auto listener = co_await listening("10.0.0.1", 80);
  auto odd_listener = co_await listening("10.0.0.2", 8080);
  anyio::task_group servers;
  servers.start_soon(anyio::serve_until_interrupted(
      listener,
      [&example](tcp_stream c, anyio::event& stopping) { return example.serve(std::move(c), stopping); },
      [](const anyio::error& e) {
        CHECK(e != errc::invalid_argument);
        CHECK(e != errc::busy_resource);
        CHECK(e != errc::closed_resource);
      }));
  servers.start_soon(odd_listener.serve([&t](tcp_stream c) { return answer_oddly(std::move(c), t); },
                                        [](const anyio::error&) {}));
  const bool cut = seed % 5 == 0;
  anyio::task_group cutting;
  if (cut) cutting.start_soon(cut_off_now_and_then(www[0]));
  const bool may_fail = cut || support::breaks(support::faults_of(seed));
  co_await client(s, t, may_fail);
  co_await anyio::when_all(fetch_page(s, may_fail), pipeline(s, may_fail), client(s, t, may_fail));
  cutting.cancel();
  sim::set_link(anyio::ip_address::loopback_v4(), www[0], {});
  sim::set_link(www[0], anyio::ip_address::loopback_v4(), {});
  sim::heal();
  co_await anyio::fail_after(1min, anyio::when_all(fetch_page(s, false), pipeline(s, false)));
  // One connection is idle and one in the middle of a request when the server is asked to stop.
  tcp_stream idle = co_await anyio::connect_tcp("www.example", 80);
  tcp_stream slow = co_await anyio::connect_tcp("www.example", 80);
  co_await slow.send("GET /0 HT");
  co_await anyio::sleep(1ms);
  sim::raise(SIGTERM);
  odd_listener.close();
  co_await anyio::fail_after(5s,
                             servers.join());  // it does not wait for them as long as it would for an answer
}

TEST_CASE("sim http: a page is whole or there is an error, and answers come in order, with any faults") {
  whole = missing = failed = 0;
  support::run_seeds(1200, 1h, http_program);
  MESSAGE("whole " << whole << ", missing " << missing << ", failed " << failed);
  CHECK(whole > support::some_of(2000));
  CHECK(missing > support::some_of(500));
  CHECK(failed > support::some_of(200));
}

}  // namespace
