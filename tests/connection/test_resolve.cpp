// From names to addresses and back.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/custom_backend.hpp"
#include "support/gate.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::gate;

/// What is asked of the system, and its answers.
struct name_server {
  void set(const std::string& host, detail::resolved answer) { answers[host] = std::move(answer); }
  void set(const std::string& host, std::initializer_list<ip_endpoint> endpoints) {
    detail::resolved answer;
    answer.endpoints = endpoints;
    set(host, std::move(answer));
  }
  std::map<std::string, detail::resolved> answers;  // not changed once a loop runs
  gate asked;
  bool blocks = false;

  std::mutex mutex;
  std::string last;  // host, port and family
  std::thread::id thread;
};

class named_backend : public support::custom_backend {
 public:
  explicit named_backend(std::shared_ptr<name_server> names) : names_(std::move(names)) {}

  detail::resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    const std::shared_ptr<name_server> names = names_;
    {
      const std::lock_guard lock(names->mutex);
      names->last = host + ' ' + std::to_string(port) + ' ' + std::to_string(family);
      names->thread = std::this_thread::get_id();
    }
    if (names->blocks) {
      names->asked.pass();
    } else {
      names->asked.arrive();
    }
    const auto found = names->answers.find(host);
    if (found != names->answers.end()) return found->second;
    detail::resolved none;
    none.status = -ENOENT;
    none.reason = "name or service not known";
    return none;
  }
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override {
    if (endpoint.port == 0) return -ENOENT;
    if (endpoint.port == 1) return -EACCES;
    host = "host-of-" + endpoint.address.to_string();
    service = std::to_string(endpoint.port);
    return 0;
  }

 private:
  std::shared_ptr<name_server> names_;
};

class threadless_backend : public named_backend {
 public:
  using named_backend::named_backend;
  bool uses_threads() const override { return false; }
};

struct fixture {
  std::shared_ptr<name_server> names = std::make_shared<name_server>();
  loop l{std::make_unique<named_backend>(names)};

  result<std::vector<ip_endpoint>> look_up(std::string_view host, int family = AF_UNSPEC) {
    return run(as_result(anyio::getaddrinfo(host, 80, family)));
  }
  /// The endpoints as one text, or the error's message.
  std::string text(std::string_view host, int family = AF_UNSPEC) {
    const auto r = look_up(host, family);
    if (!r) return r.error().message();
    std::string all;
    for (const ip_endpoint& e : *r) all += (all.empty() ? "" : " ") + e.to_string();
    return all;
  }
};

task<std::size_t> count(std::string host) {
  const auto found = co_await anyio::getaddrinfo(host, 80);
  co_return found.size();
}

}  // namespace

TEST_CASE_FIXTURE(fixture, "an address as text is returned without a look-up") {
  CHECK(text("127.0.0.1") == "127.0.0.1:80");
  CHECK(text("::1") == "[::1]:80");
  CHECK(text("2001:DB8::0:1") == "[2001:db8::1]:80");
  CHECK(text("fe80::1%7") == ip_endpoint::parse("[fe80::1%7]:80")->to_string());
  CHECK(names->asked.arrived() == 0);
}

TEST_CASE_FIXTURE(fixture, "localhost and all names under it are this machine, without a look-up") {
  for (const char* name : {"localhost", "LocalHost", "localhost.", "foo.localhost", "a.b.LOCALHOST."}) {
    CAPTURE(name);
    CHECK(text(name) == "[::1]:80 127.0.0.1:80");
    CHECK(text(name, AF_INET) == "127.0.0.1:80");
    CHECK(text(name, AF_INET6) == "[::1]:80");
  }
  CHECK(names->asked.arrived() == 0);
  for (const char* name : {"notlocalhost", "localhost.example", "localhos", "local.host"}) {
    CAPTURE(name);
    CHECK(look_up(name).error() == errc::name_resolution);
  }
  CHECK(names->asked.arrived() == 4);
}

TEST_CASE_FIXTURE(fixture, "an address not of the requested family is name_resolution") {
  CHECK(text("127.0.0.1", AF_INET) == "127.0.0.1:80");
  CHECK(text("::1", AF_INET6) == "[::1]:80");
  CHECK(look_up("127.0.0.1", AF_INET6).error() == errc::name_resolution);
  CHECK(look_up("::1", AF_INET).error() == errc::name_resolution);
  CHECK(text("::1", AF_INET) == "getaddrinfo: the address is not of the requested family");
  CHECK(names->asked.arrived() == 0);
}

TEST_CASE_FIXTURE(fixture, "an IPv4-mapped address is IPv6 if IPv6 is requested") {
  const ip_endpoint v4{ip_address::v4(0x01020304), 80};
  names->set("mapped.example", {v4});  // the resolver reports it like this for any query
  CHECK(text("mapped.example", AF_INET6) == "[::ffff:1.2.3.4]:80");
  CHECK(text("mapped.example") == "1.2.3.4:80");
  CHECK(text("::ffff:1.2.3.4") == "[::ffff:1.2.3.4]:80");
  CHECK(text("::ffff:1.2.3.4", AF_INET6) == "[::ffff:1.2.3.4]:80");
  CHECK(look_up("::ffff:1.2.3.4", AF_INET).error() == errc::name_resolution);
}

TEST_CASE_FIXTURE(fixture, "a family other than IPv4 and IPv6 is os_error with EAFNOSUPPORT") {
  const auto r = look_up("localhost", AF_UNIX);
  CHECK(r.error() == errc::os_error);
  CHECK(r.error() == std::errc::address_family_not_supported);
}

TEST_CASE_FIXTURE(fixture, "a host that is not a valid name is invalid_argument, without a look-up") {
  using namespace std::string_view_literals;
  const std::string longest = std::string(63, 'a') + '.' + std::string(63, 'b') + '.' + std::string(63, 'c') +
                              '.' + std::string(61, 'd');
  CHECK(longest.size() == 253);
  for (const std::string& host : {std::string(),
                                  std::string("b\xc3\xbc"
                                              "cher.example"),
                                  std::string("\x80"), std::string("localhost\0.example"sv),
                                  std::string("\0"sv), longest + 'd', longest + "d."}) {
    CAPTURE(host);
    CHECK(look_up(host).error() == errc::invalid_argument);
  }
  CHECK(names->asked.arrived() == 0);
  CHECK(look_up(longest).error() == errc::name_resolution);
  CHECK(look_up(longest + '.').error() == errc::name_resolution);
  CHECK(names->asked.arrived() == 2);
}

TEST_CASE_FIXTURE(fixture, "other names are looked up by the system, and its order is kept") {
  names->set("www.example", {{ip_address::v4(0x01020304), 80}, {ip_address::loopback_v6(), 80}});
  CHECK(text("www.example", AF_INET) == "1.2.3.4:80 [::1]:80");
  CHECK(names->last == "www.example 80 " + std::to_string(AF_INET));
#if !defined(ANYIO_NET_NO_THREADS)
  CHECK(names->thread != std::this_thread::get_id());
#endif
  CHECK(run(count("www.example")) == 2);
}

TEST_CASE_FIXTURE(fixture, "a name can be looked up with a callback") {
  names->set("www.example", {{ip_address::v4(0x01020304), 80}});
  auto op = anyio::getaddrinfo("www.example", 80);
  std::size_t found = 0;
  op.start([&found](result<std::vector<ip_endpoint>> r) { found += r->size(); });
  CHECK(found == 0);
  l.run();
  CHECK(found == 1);
  op.start([&found](result<std::vector<ip_endpoint>> r) { found += r->size(); });
  anyio::getaddrinfo("::1", 80).start([&found](result<std::vector<ip_endpoint>> r) { found += r->size(); });
  l.run();
  CHECK(found == 3);
}

TEST_CASE_FIXTURE(fixture, "a failure of the resolver is name_resolution with its text") {
  const auto r = look_up("no.example");
  CHECK(r.error() == errc::name_resolution);
  CHECK(r.error().os_error() == 0);
  CHECK(r.error().operation() == "getaddrinfo");
  CHECK(r.error().message() == "getaddrinfo: name or service not known");
}

TEST_CASE_FIXTURE(fixture, "a failure of the system is os_error with its errno") {
  detail::resolved answer;
  answer.status = -EMFILE;
  names->set("www.example", answer);
  const auto r = look_up("www.example");
  CHECK(r.error() == errc::os_error);
  CHECK(r.error() == std::errc::too_many_files_open);
}

TEST_CASE_FIXTURE(fixture, "an answer without addresses is name_resolution") {
  names->set("www.example", detail::resolved());
  CHECK(look_up("www.example").error() == errc::name_resolution);
}

TEST_CASE_FIXTURE(fixture, "the host is copied before getaddrinfo returns") {
  names->set("a-name-that-is-not-short.example", {{ip_address::loopback_v4(), 80}});
  std::string host = "a-name-that-is-not-short.example";
  auto op = anyio::getaddrinfo(host, 80);
  host.assign(host.size(), 'x');
  CHECK(run(op).size() == 1);
}

TEST_CASE_FIXTURE(fixture, "a default-constructed look-up is invalid_argument") {
  detail::resolve_operation op;
  CHECK(run(as_result(op)).error() == errc::invalid_argument);
  detail::reverse_operation reverse;
  CHECK(run(as_result(reverse)).error() == errc::invalid_argument);
}

TEST_CASE("if the backend wants no threads, names resolve in place") {
  const auto names = std::make_shared<name_server>();
  names->set("www.example", {{ip_address::loopback_v4(), 80}});
  loop l(std::make_unique<threadless_backend>(names));
  CHECK(run(count("www.example")) == 1);
  CHECK(names->thread == std::this_thread::get_id());
}

TEST_CASE_FIXTURE(fixture, "getnameinfo returns host and service") {
  const auto [host, service] = run(anyio::getnameinfo({ip_address::loopback_v4(), 443}));
  CHECK(host == "host-of-127.0.0.1");
  CHECK(service == "443");
  CHECK(run(as_result(anyio::getnameinfo({ip_address::loopback_v4(), 0}))).error() == errc::name_resolution);
  CHECK(run(as_result(anyio::getnameinfo({ip_address::loopback_v4(), 1}))).error() ==
        std::errc::permission_denied);
}

TEST_CASE("the system returns the name, or the number, of an address") {
  const name_info found = run(anyio::getnameinfo({ip_address::v4(0xc0000201), 9}));  // TEST-NET-1, RFC 5737
  CHECK(!found.host.empty());
  CHECK(!found.service.empty());
}

#if !defined(ANYIO_NET_NO_THREADS)

TEST_CASE("nothing waits for a look-up that never returns") {
  const auto names = std::make_shared<name_server>();
  names->blocks = true;

  SUBCASE("its operation is destroyed") {
    loop l(std::make_unique<named_backend>(names));
    {
      auto op = anyio::getaddrinfo("www.example", 80);
      op.start([](result<std::vector<ip_endpoint>>) { CHECK(false); });
      l.run_once(0s);
      names->asked.wait_for(1);
    }
    l.run();
    CHECK(l.time_until_next() > 0s);
  }
  SUBCASE("its time limit expires") {
    loop l(std::make_unique<named_backend>(names));
    CHECK(run(as_result(fail_after(1ms, count("www.example")))).error() == errc::timed_out);
    CHECK(run(as_result(fail_after(1ms, anyio::getaddrinfo("www.example", 80)))).error() == errc::timed_out);
    CHECK(!run(move_on_after(0s, anyio::getaddrinfo("www.example", 80))));
    CHECK(run(move_on_after(0s, anyio::getaddrinfo("localhost", 80))));
  }
  SUBCASE("its loop ends") {
    loop l(std::make_unique<named_backend>(names));
    anyio::getaddrinfo("www.example", 80).start([](result<std::vector<ip_endpoint>>) { CHECK(false); });
    l.run_once(0s);
    names->asked.wait_for(1);
  }
  SUBCASE("its loop ends before the operation") {
    auto op = anyio::getaddrinfo("www.example", 80);
    loop l(std::make_unique<named_backend>(names));
    op.start([](result<std::vector<ip_endpoint>>) { CHECK(false); });
    l.run_once(0s);
    names->asked.wait_for(1);
  }
  SUBCASE("many abandoned look-ups do not keep another from being cancelled") {
    loop l(std::make_unique<named_backend>(names));
    std::vector<detail::resolve_operation> ops;
    for (int i = 0; i < 40; ++i) ops.push_back(anyio::getaddrinfo("www.example", 80));
    for (auto& op : ops) op.start([](result<std::vector<ip_endpoint>>) { CHECK(false); });
    l.run_once(0s);
    names->asked.wait_for(16);
    ops.clear();
    l.run();
    CHECK(names->asked.arrived() == 16);
  }
  // Released: the helper threads end and release what they kept alive.
  names->asked.open();
}

TEST_CASE("look-ups of many loops, cancelled at any moment, leak nothing") {
  const auto names = std::make_shared<name_server>();
  names->set("www.example", {{ip_address::loopback_v4(), 80}});
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&names, t] {
      for (int i = 0; i < 30; ++i) {
        loop l(std::make_unique<named_backend>(names));
        anyio::getaddrinfo("www.example", 80).start([](result<std::vector<ip_endpoint>>) {});
        for (int turns = (i + t) % 3; turns != 0; --turns) l.run_once(0s);
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

#endif
