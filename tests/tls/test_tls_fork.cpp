// What a forked child does to TLS connections: nothing that the peer or the parent could notice.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "support/child.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/tls_engines.hpp"

namespace {

using anyio::loop;
using anyio::tls_stream;
using support::by_callback;
using support::by_coroutine;
using support::in_child;
using support::waiting;

bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) > 0;
}

anyio::tls_options options(std::string_view name) {
  anyio::tls_options o;
  o.server_name = name;
  return o;
}

/// A client and a server over TCP.
struct connection {
  support::tls_context_ptr client_context, server_context;
  tls_stream client, server;
  int server_fd = -1;

  explicit connection(const support::tls_library& library)
      : client_context(support::make_context(library, {})),
        server_context(support::make_context(library, {.certificate = "server"})) {
    auto p = anyio::run(support::tcp::pair());
    server_fd = p.second.native_handle();
    waiting<tls_stream> accepting;
    by_callback::start(
        tls_stream::wrap_server(std::make_unique<anyio::tcp_stream>(std::move(p.second)), server_context),
        accepting);
    client = by_callback::get(tls_stream::wrap_client(std::make_unique<anyio::tcp_stream>(std::move(p.first)),
                                                      client_context, options("localhost")))
                 .value();
    server = accepting.get().value();
  }
};

}  // namespace

TEST_CASE("a child that destroys a TLS stream sends no close_notify and reads nothing") {
  support::for_every_library([](const support::tls_library& library) {
    for (int way = 0; way < 4; ++way) {
      std::optional<loop> l(std::in_place);
      {
        connection c(library);
        CHECK(by_callback::get(c.server.send("y")).has_value());  // which is unread in the client's socket
        CHECK(in_child([&] {
                switch (way) {
                  case 0: c.client.close(); break;
                  case 1: c.client = {}; break;
                  case 2: static_cast<void>(tls_stream(std::move(c.client))); break;
                  default: l.reset();
                }
                return true;
              }) == 0);
        CHECK(!is_readable(c.server_fd));
        CHECK(by_callback::get(c.client.receive()).value() == "y");
        CHECK(by_coroutine::get(c.client.send("x")).has_value());
        CHECK(by_coroutine::get(c.server.receive()).value() == "x");
      }
    }
  });
}

TEST_CASE("a child that destroys a handshake leaves the parent's unchanged") {
  support::for_every_library([](const support::tls_library& library) {
    for (const bool end_loop : {false, true}) {
      std::optional<loop> l(std::in_place);
      const auto client_context = support::make_context(library, {});
      const auto server_context = support::make_context(library, {.certificate = "server"});
      auto p = anyio::run(support::tcp::pair());
      waiting<tls_stream> connecting;
      auto shaking = std::make_optional(tls_stream::wrap_client(
          std::make_unique<anyio::tcp_stream>(std::move(p.first)), client_context, options("localhost")));
      std::optional<anyio::result<tls_stream>> connected;
      shaking->start([&](anyio::result<tls_stream> r) { connected.emplace(std::move(r)); });
      support::settle();
      CHECK(in_child([&] {
              if (end_loop) l.reset();
              shaking.reset();
              return true;
            }) == 0);
      auto server = by_callback::get(
          tls_stream::wrap_server(std::make_unique<anyio::tcp_stream>(std::move(p.second)), server_context));
      CHECK(server.has_value());
      support::settle();
      CHECK((connected.has_value() && connected->has_value()));
    }
  });
}

TEST_CASE("a child whose parent ends continues over TLS after after_fork") {
  support::for_every_library([](const support::tls_library& library) {
    loop l;
    connection c(library);
    waiting<std::string> w;
    by_coroutine::start(c.server.receive(), w);
    support::settle();
    CHECK(in_child([&] {
            l.after_fork();
            const bool sent = by_callback::get(c.client.send("x")).has_value();
            const bool got = w.get().value_or("") == "x";
            c.client.close();
            return sent && got && by_callback::get(c.server.receive()).error() == anyio::errc::end_of_stream;
          }) == 0);
  });
}
