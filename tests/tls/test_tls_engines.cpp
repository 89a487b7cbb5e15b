// The promises of every TLS engine through the hook, by itself and with each other: pairs of engines talk in
// memory, without a network or a loop.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/certificates.hpp"
#include "support/tls_engines.hpp"

namespace {

using anyio::tls_info;
using anyio::tls_status;
using anyio::tls_verify;
using anyio::tls_version;
using support::certificate_der;
using support::certificate_text;
using support::for_every_library;
using support::for_every_pair;
using support::make_context;
using support::tls_context_ptr;
using support::tls_end;
using support::tls_library;
using support::tls_link;
using support::tls_reading;
using support::tls_setup;

namespace tls_reason = anyio::detail::tls_reason;

constexpr std::string_view alert_words = "the peer sent the alert ";

std::string text_of_size(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 / 3 % 26);
  return text;
}

bool speaks_tls13(const tls_library& a, const tls_library& b) { return a.has_tls13 && b.has_tls13; }

/// Lets the handshake fail. The client's error: after its handshake or, under TLS 1.3, at its first read.
std::string client_failure(tls_link& link) {
  CHECK(!link.handshake());
  if (link.client_status == tls_status::ok) {
    const tls_reading got = link.read(link.client);
    CHECK(got.text.empty());
    CHECK(got.status == tls_status::failed);
  } else {
    CHECK(link.client_status == tls_status::failed);
  }
  return link.client.engine->last_error();
}

/// Text from one end to the other, and back.
void check_talk(tls_link& link) {
  CHECK(link.write(link.client, "to the server") == tls_status::ok);
  CHECK(link.read(link.server).text == "to the server");
  CHECK(link.write(link.server, "to the client") == tls_status::ok);
  CHECK(link.read(link.client).text == "to the client");
}

// ---- a connection without errors --------------------------------------------------------------------

TEST_CASE("tls engines: after the handshake both ends report the same agreed settings") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {.certificate = "client", .alpn = {"other", "chosen"}});
    const tls_context_ptr server =
        make_context(s, {.certificate = "server", .alpn = {"chosen"}, .verify_client = tls_verify::peer});
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, tls_link::whole}) {
      CAPTURE(chunk);
      // A name without an earlier session.
      const std::string name = chunk == 1 ? "localhost" : chunk == 7 ? "server.example" : "a.wild.example";
      tls_link link(client, name, server, chunk);
      CHECK(link.handshake());
      const tls_info at_client = link.client.engine->info();
      const tls_info at_server = link.server.engine->info();
      CHECK(at_client.version == (speaks_tls13(c, s) ? "TLSv1.3" : "TLSv1.2"));
      CHECK(at_server.version == at_client.version);
      CHECK(at_client.cipher.starts_with("TLS_"));
      CHECK(at_client.cipher.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos);
      CHECK(at_server.cipher == at_client.cipher);
      CHECK(at_client.alpn == "chosen");
      CHECK(at_server.alpn == "chosen");
      CHECK(at_client.server_name == name);
      CHECK(at_server.server_name == name);
      CHECK((at_client.peer_certificate_der == certificate_der("server.pem")));
      CHECK((at_server.peer_certificate_der == certificate_der("client.pem")));
      CHECK(!at_client.server_side);
      CHECK(at_server.server_side);
      CHECK(!at_client.resumed);
      CHECK(!at_server.resumed);
      check_talk(link);
    }
  });
}

TEST_CASE("tls engines: data is sent both ways, in pieces of any size, and more than a record holds") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    const std::string much = text_of_size(40 * 1024);
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, tls_link::whole}) {
      for (const std::size_t at_most : {std::size_t{5}, std::size_t{65536}}) {
        CAPTURE(chunk);
        CAPTURE(at_most);
        tls_link link(client, "localhost", server, chunk);
        CHECK(link.handshake());
        for (tls_end* from : {&link.client, &link.server}) {
          tls_end& to = link.other(*from);
          CHECK(link.write(*from, much) == tls_status::ok);
          CHECK((link.read(to, at_most).text == much));
          CHECK(link.write(*from, "x") == tls_status::ok);
          CHECK(link.write(*from, "yz") == tls_status::ok);
          CHECK(link.read(to, at_most).text == "xyz");
        }
      }
    }
  });
}

TEST_CASE("tls engines: a write accepts a part of data too large for one record") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    tls_link link(make_context(c, {}), "localhost", make_context(s, {.certificate = "server"}));
    CHECK(link.settle());
    const std::string much = text_of_size(100'000);
    for (tls_end* end : {&link.client, &link.server}) {
      std::size_t n = 0;
      CHECK(end->ask([&] { return end->engine->write(much, n); }, link.other(*end).arriving) ==
            tls_status::ok);
      CHECK(n >= 1);
      CHECK(n <= 16384);
      CHECK(link.other(*end).arriving.size() < 20'000);
      CHECK((link.read(link.other(*end)).text == much.substr(0, n)));
    }
  });
}

TEST_CASE("tls engines: data left by a read is pending, and needs no input") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    tls_link link(make_context(c, {}), "localhost", make_context(s, {.certificate = "server"}));
    CHECK(link.settle());
    for (tls_end* end : {&link.client, &link.server}) {
      CHECK(!end->engine->pending());
      CHECK(link.write(link.other(*end), "abc") == tls_status::ok);
      while (end->take_arriving(tls_link::whole)) {
      }
      std::string ignored;
      for (const std::string_view expected : {"a", "b", "c"}) {
        char into[1] = {};
        std::size_t n = 0;
        CHECK(end->ask([&] { return end->engine->read(into, n); }, ignored) == tls_status::ok);
        CHECK(n == 1);
        CHECK(std::string_view(into, 1) == expected);
        CHECK(end->engine->pending() == (expected != "c"));
      }
    }
  });
}

TEST_CASE("tls engines: data right after the handshake is read, with all messages in between") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, tls_link::whole}) {
      CAPTURE(chunk);
      tls_link link(client, "localhost", server, chunk);
      CHECK(link.handshake());
      // The server's tickets are before this, and the client has not read them.
      CHECK(link.write(link.server, "from the server") == tls_status::ok);
      CHECK(link.write(link.client, "from the client") == tls_status::ok);
      const tls_reading at_client = link.read(link.client);
      CHECK(at_client.text == "from the server");
      CHECK(at_client.status == tls_status::want_input);
      CHECK(link.read(link.server).text == "from the client");
    }
    // Tickets that were never read do not block writing, nor the end.
    tls_link link(client, "localhost", server);
    CHECK(link.handshake());
    CHECK(link.write(link.client, "from the client") == tls_status::ok);
    CHECK(link.close(link.client) == tls_status::ok);
    const tls_reading at_server = link.read(link.server);
    CHECK(at_server.text == "from the client");
    CHECK(at_server.status == tls_status::closed);
  });
}

TEST_CASE("tls engines: a client may write before the server knows that its handshake is complete") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (int i = 0; i < 2; ++i) {  // the second one is resumed, with another order of messages
      CAPTURE(i);
      tls_link link(client, "localhost", server);
      for (int turn = 0; turn < 10 && link.advance(link.client) != tls_status::ok; ++turn)
        link.advance(link.server);
      CHECK(link.client_status == tls_status::ok);
      CHECK(link.write(link.client, "early") == tls_status::ok);
      CHECK(link.handshake());
      CHECK(link.read(link.server).text == "early");
      check_talk(link);
    }
  });
}

TEST_CASE("tls engines: an engine keeps the parts of its context that it needs") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_setup with_rules = {.certificate = "server", .alpn = {"kept"}};
    tls_link link(make_context(c, with_rules), "localhost", make_context(s, with_rules));
    link.client.context.reset();
    link.server.context.reset();
    CHECK(link.handshake());
    CHECK(link.server.engine->info().alpn == "kept");
    check_talk(link);
  });
}

TEST_CASE("tls engines: an engine can be queried or destroyed at any time") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (std::size_t cut = 0; cut < 2000; cut += 50) {
      CAPTURE(cut);
      tls_link link(client, "localhost", server, 1);
      link.client.cut_at = cut;
      link.handshake();
      for (const tls_end* end : {&link.client, &link.server}) {
        CHECK(end->engine->info().server_side == (end == &link.server));
        CHECK(end->engine->info().server_name == "localhost");
        CHECK(!end->engine->pending());
        CHECK(end->engine->last_error() == "");
      }
    }
    anyio::tls_pipe pipes[2];
    const auto unused_client = client->client(pipes[0], "localhost");
    const auto unused_server = server->server(pipes[1]);
    for (const auto* unused : {&unused_client, &unused_server}) {
      CHECK((*unused)->info().alpn == "");
      CHECK(!(*unused)->pending());
      CHECK((*unused)->last_error() == "");
    }
  });
}

TEST_CASE("tls engines: a context serves several threads at once") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    std::array<int, 4> complete = {};
    std::vector<std::thread> threads;
    for (int& count : complete) {
      threads.emplace_back([&client, &server, &count] {
        for (int i = 0; i < 5; ++i) {
          tls_link link(client, i % 2 == 0 ? "localhost" : "server.example", server);
          if (link.settle() && link.write(link.server, "text") == tls_status::ok &&
              link.read(link.client).text == "text")
            ++count;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : complete) CHECK(count == 5);
  });
}

// ---- its end ----------------------------------------------------------------------------------------

TEST_CASE("tls engines: close_notify ends only one direction") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const bool client_first : {true, false}) {
      for (const std::size_t chunk : {std::size_t{1}, tls_link::whole}) {
        CAPTURE(client_first);
        CAPTURE(chunk);
        tls_link link(client, "localhost", server, chunk);
        CHECK(link.handshake());
        tls_end& first = client_first ? link.client : link.server;
        tls_end& second = link.other(first);
        CHECK(link.write(first, "the last words") == tls_status::ok);
        CHECK(link.close(first) == tls_status::ok);
        const tls_reading last = link.read(second);
        CHECK(last.text == "the last words");
        CHECK(last.status == tls_status::closed);
        CHECK(link.read(second).status == tls_status::closed);

        CHECK(link.write(second, "an answer") == tls_status::ok);
        const tls_reading answer = link.read(first);
        CHECK(answer.text == "an answer");
        CHECK(answer.status == tls_status::want_input);
        CHECK(link.close(second) == tls_status::ok);
        CHECK(link.read(first).status == tls_status::closed);
        second.eof = first.eof = true;
        CHECK(link.read(first).status == tls_status::closed);
        CHECK(link.read(second).status == tls_status::closed);
      }
    }
  });
}

TEST_CASE("tls engines: both ends may close at once") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    tls_link link(make_context(c, {}), "localhost", make_context(s, {.certificate = "server"}));
    CHECK(link.handshake());
    CHECK(link.close(link.client) == tls_status::ok);
    CHECK(link.close(link.server) == tls_status::ok);
    CHECK(link.read(link.client).status == tls_status::closed);
    CHECK(link.read(link.server).status == tls_status::closed);
  });
}

TEST_CASE("tls engines: an end without close_notify is truncated, permanently") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const bool alone : {true, false}) {
      CAPTURE(alone);
      tls_link link(client, "localhost", server);
      CHECK(link.settle());
      for (tls_end* end : {&link.client, &link.server}) {
        CHECK(link.write(link.other(*end), "text") == tls_status::ok);
        end->eof_comes_alone = alone;
        end->eof = true;
        const tls_reading got = link.read(*end);
        CHECK(got.text == "text");
        CHECK(got.status == tls_status::truncated);
        CHECK(link.read(*end).status == tls_status::truncated);
      }
    }
  });
}

// ---- damage ---------------------------------------------------------------------------------------

/// A connection at whose reader one more record arrives, of data or a close_notify.
struct one_record {
  one_record(const tls_context_ptr& client, const tls_context_ptr& server, bool to_client, bool is_data)
      : link(client, "localhost", server), reader(to_client ? link.client : link.server) {
    CHECK(link.settle());
    tls_end& writer = link.other(reader);
    CHECK((is_data ? link.write(writer, "data") : link.close(writer)) == tls_status::ok);
    size = reader.arriving.size();
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(reader.arriving[i]); };
    CHECK(size > 5);
    if (size > 5) CHECK(size == 5u + byte(3) * 256u + byte(4));
    reader.eof = true;
  }
  tls_link link;
  tls_end& reader;
  std::size_t size = 0;
};

/// Calls `body(client, server, to_client, is_data)` for all combinations.
template <class Body>
void for_every_record(Body body) {
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    // Later handshakes resume a session, which takes little time.
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const bool to_client : {true, false}) {
      for (const bool is_data : {true, false}) {
        CAPTURE(to_client);
        CAPTURE(is_data);
        body(client, server, to_client, is_data);
      }
    }
  });
}

TEST_CASE("tls engines: a record cut anywhere is truncated, never an end and never data") {
  for_every_record([](const auto& client, const auto& server, bool to_client, bool is_data) {
    std::size_t size = 1;
    for (std::size_t kept = 0; kept <= size; ++kept) {
      CAPTURE(kept);
      one_record last(client, server, to_client, is_data);
      size = last.size;
      last.reader.eof_comes_alone = kept % 2 == 0;
      last.reader.arriving.resize(kept);
      const tls_reading got = last.link.read(last.reader);
      const bool complete = kept == size;
      CHECK(got.text == (complete && is_data ? "data" : ""));
      CHECK(got.status == (complete && !is_data ? tls_status::closed : tls_status::truncated));
    }
  });
}

TEST_CASE("tls engines: a record with a wrong bit fails, with an alert and a reason, and is never data") {
  for_every_record([](const auto& client, const auto& server, bool to_client, bool is_data) {
    std::size_t size = 1;
    for (std::size_t at = 0; at < size; ++at) {
      const unsigned bit = 1u << at % 8;
      CAPTURE(at);
      CAPTURE(bit);
      one_record last(client, server, to_client, is_data);
      size = last.size;
      tls_end& writer = last.link.other(last.reader);
      last.reader.arriving[at] =
          static_cast<char>(static_cast<unsigned char>(last.reader.arriving[at]) ^ bit);
      const tls_reading got = last.link.read(last.reader);
      CHECK(got.text == "");
      const bool in_length = at == 3 || at == 4;
      if (in_length && got.status == tls_status::truncated) continue;  // its length field is larger
      CHECK(got.status == tls_status::failed);
      if (got.status != tls_status::failed) continue;
      if (at >= 5) CHECK(last.reader.engine->last_error() == std::string_view(tls_reason::bad_record));
      CHECK(!writer.arriving.empty());
      const tls_reading told = last.link.read(writer);
      CHECK(told.text == "");
      CHECK(told.status == tls_status::failed);
      CHECK(std::string_view(writer.engine->last_error()).starts_with(alert_words));
    }
  });
}

TEST_CASE("tls engines: a repeated or reordered record fails") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const bool twice : {true, false}) {
      for (const bool to_client : {true, false}) {
        CAPTURE(twice);
        CAPTURE(to_client);
        tls_link link(client, "localhost", server);
        CHECK(link.settle());
        tls_end& reader = to_client ? link.client : link.server;
        CHECK(link.write(link.other(reader), "first") == tls_status::ok);
        const std::string first = reader.arriving;
        reader.arriving.clear();
        CHECK(link.write(link.other(reader), "second") == tls_status::ok);
        reader.arriving = twice ? first + first : reader.arriving + first;
        const tls_reading got = link.read(reader);
        CHECK(got.text == (twice ? "first" : ""));
        CHECK(got.status == tls_status::failed);
        CHECK(reader.engine->last_error() == std::string_view(tls_reason::bad_record));
      }
    }
  });
}

/// The bytes that an end needs for its handshake, except for the few by which signatures differ in size.
std::size_t needed_for_handshake(const tls_context_ptr& client, const tls_context_ptr& server,
                                 tls_end tls_link::*end) {
  tls_link link(client, "localhost", server, 1);
  CHECK(link.handshake());
  const std::size_t taken = (link.*end).taken;
  CHECK(link.settle());
  return taken;
}

TEST_CASE("tls engines: a handshake cut anywhere is truncated") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (tls_end tls_link::*end : {&tls_link::client, &tls_link::server}) {
      CAPTURE(end == &tls_link::client);
      const std::size_t needed = needed_for_handshake(make_context(c, {}), server, end);
      CHECK(needed > 100);
      const tls_context_ptr client = make_context(c, {});
      for (std::size_t cut = 0; cut + 16 < needed; cut += 37) {
        CAPTURE(cut);
        tls_link link(client, "localhost", server);
        (link.*end).cut_at = cut;
        CHECK(!link.handshake());
        CHECK(link.status(link.*end) == tls_status::truncated);
      }
    }
  });
}

TEST_CASE("tls engines: a handshake is complete with its last byte, and not before") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (tls_end tls_link::*end : {&tls_link::client, &tls_link::server}) {
      CAPTURE(end == &tls_link::client);
      const tls_context_ptr client = make_context(c, {});
      const tls_context_ptr server = make_context(s, {.certificate = "server"});
      for (const bool resumed : {false, true}) {
        CAPTURE(resumed);
        tls_link link(client, "localhost", server, 1);
        CHECK(link.handshake());
        CHECK(link.client.engine->info().resumed == resumed);
        CHECK(link.server.arriving.empty());
        if (!speaks_tls13(c, s)) CHECK(link.client.arriving.empty());  // else tickets follow
        CHECK(link.settle());
      }
      // Resumed handshakes have no signatures, so that they always have the same size.
      const std::size_t needed = needed_for_handshake(client, server, end);
      for (const std::size_t missing : {std::size_t{1}, std::size_t{2}, std::size_t{16}, std::size_t{30}}) {
        CAPTURE(missing);
        {
          tls_link link(client, "localhost", server);
          (link.*end).cut_at = needed - missing;
          CHECK(!link.handshake());
          CHECK(link.status(link.*end) == tls_status::truncated);
        }
        CHECK(needed_for_handshake(client, server, end) > 0);  // creates a session again
        {
          tls_link link(client, "localhost", server);
          (link.*end).flip_at = needed - missing;
          CHECK(!link.handshake());
          CHECK(link.status(link.*end) == tls_status::failed);
        }
        CHECK(needed_for_handshake(client, server, end) > 0);
      }
    }
  });
}

TEST_CASE("tls engines: a handshake with a wrong bit ends in one connection, or in none") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (tls_end tls_link::*end : {&tls_link::client, &tls_link::server}) {
      CAPTURE(end == &tls_link::client);
      const std::size_t needed = needed_for_handshake(make_context(c, {}), server, end);
      for (std::size_t at = 0; at < needed; at += 23) {
        CAPTURE(at);
        tls_link link(make_context(c, {}), "localhost", server);
        (link.*end).flip_at = at;
        (link.*end).flipped = static_cast<unsigned char>(1u << at % 8);
        if (link.handshake()) {
          check_talk(link);  // some bits are not checked
        } else {
          for (tls_end* e : {&link.client, &link.server})
            if (link.status(*e) == tls_status::ok) CHECK(link.read(*e).text == "");
        }
      }
    }
  });
}

/// An end without a peer: the test provides its input.
struct lone_end {
  lone_end(const tls_library& library, bool is_server) : server(is_server) {
    context = make_context(library, {.certificate = "server"});
    end.engine = is_server ? context->server(end.pipe) : context->client(end.pipe, "localhost");
    CHECK(end.engine != nullptr);
  }
  tls_status handshake_with(std::string_view input) {
    end.arriving = input;
    end.eof = true;
    for (;;) {
      const tls_status status = end.ask([this] { return end.engine->handshake(); }, sent);
      if (status != tls_status::want_input || !end.take_arriving(tls_link::whole)) return status;
    }
  }
  bool server;
  tls_context_ptr context;
  tls_end end;
  std::string sent;
};

template <class Body>
void for_every_lone_end(Body body) {
  for_every_library([&](const tls_library& library) {
    for (const bool server : {true, false}) {
      CAPTURE(server);
      body(library, server);
    }
  });
}

TEST_CASE("tls engines: data that is not TLS fails at once, with that reason") {
  using namespace std::string_view_literals;
  const std::string_view inputs[] = {
      "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"sv,
      "POST / HTTP/1.0\r\n\r\n"sv,
      "HTTP/1.1 400 Bad Request\r\n\r\n"sv,
      "220 mail.example ESMTP\r\n"sv,
      "SSH-2.0-OpenSSH_9.2\r\n"sv,
      "\0\0\0\0\0\0\0\0\0\0\0\0"sv,
      "\x16\x03\x01\xff\xff\x01\xff\xff\xff\x03\x03"sv,  // a record of 65535 bytes
      "\x16\x09\x01\x00\x05\x01\x00\x00\x01\x00"sv,      // TLS 8
  };
  for_every_lone_end([&](const tls_library& library, bool server) {
    for (const std::string_view input : inputs) {
      CAPTURE(input);
      lone_end lone(library, server);
      CHECK(lone.handshake_with(input) == tls_status::failed);
      CHECK(lone.end.engine->last_error() == std::string_view(tls_reason::not_tls));
    }
  });
}

TEST_CASE("tls engines: an end before any byte is truncated") {
  for_every_lone_end([](const tls_library& library, bool server) {
    for (const std::string_view input : {"", "\x16", "\x16\x03\x01"}) {
      CAPTURE(input);
      lone_end lone(library, server);
      CHECK(lone.handshake_with(input) == tls_status::truncated);
    }
  });
}

TEST_CASE("tls engines: random bytes never complete a handshake") {
  for_every_lone_end([](const tls_library& library, bool server) {
    std::mt19937 random(1);
    for (int i = 0; i < 100; ++i) {
      CAPTURE(i);
      std::string input(1 + random() % 400, '\0');
      for (char& byte : input) byte = static_cast<char>(random());
      // Half of them have a valid header, so that they are read beyond it.
      if (i % 2 == 0 && input.size() > 9) {
        const std::size_t size = input.size() - 5;
        const char header[] = {22, 3, 3, static_cast<char>(size >> 8), static_cast<char>(size)};
        std::copy(std::begin(header), std::end(header), input.begin());
        if (i % 4 == 0) input[5] = server ? 1 : 2;  // a hello
      }
      lone_end lone(library, server);
      const tls_status status = lone.handshake_with(input);
      CHECK((status == tls_status::failed || status == tls_status::truncated));
    }
  });
}

/// A client's first message, as old clients send it.
std::string hello_of_version(char major, char minor) {
  std::string body = {major, minor};
  body += std::string(32, 'r');
  body += std::string("\0\0\x04\x00\x2f\xc0\x13\x01\0", 9);  // no session, two ciphers, no compression
  std::string message = {1, 0, 0, static_cast<char>(body.size())};
  message += body;
  std::string record = {22, 3, 1, 0, static_cast<char>(message.size())};
  return record + message;
}

TEST_CASE("tls engines: a server rejects versions before 1.2, with the alert protocol_version") {
  for_every_library([](const tls_library& library) {
    for (const char minor : {char{1}, char{2}}) {
      CAPTURE(static_cast<int>(minor));
      lone_end lone(library, true);
      CHECK(lone.handshake_with(hello_of_version(3, minor)) == tls_status::failed);
      CHECK(lone.sent.size() == 7);
      CHECK(lone.sent.starts_with("\x15\x03"));
      CHECK(lone.sent.ends_with("\x02\x46"));
    }
    lone_end oldest(library, true);
    CHECK(oldest.handshake_with(hello_of_version(3, 0)) == tls_status::failed);
  });
}

// ---- protocols and versions --------------------------------------------------------------------------

TEST_CASE("tls engines: the server's preference selects the protocol") {
  struct example {
    std::vector<std::string_view> client, server;
    std::string_view agreed;
  };
  const std::string longest(255, 'l');
  const example examples[] = {
      {{"http/1.1", "h2"}, {"h2", "http/1.1"}, "h2"},
      {{"h2", "http/1.1"}, {"http/1.1"}, "http/1.1"},
      {{"h2"}, {"http/1.1", "h2"}, "h2"},
      {{"h"}, {"h2", "h"}, "h"},
      {{longest}, {longest}, longest},
      {{"h2"}, {}, ""},
      {{}, {"h2"}, ""},
  };
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    for (const example& e : examples) {
      CAPTURE(e.agreed);
      tls_link link(make_context(c, {.alpn = e.client}), "localhost",
                    make_context(s, {.certificate = "server", .alpn = e.server}));
      CHECK(link.handshake());
      CHECK(link.client.engine->info().alpn == e.agreed);
      CHECK(link.server.engine->info().alpn == e.agreed);
    }
  });
}

TEST_CASE("tls engines: no common protocol fails at both ends") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    tls_link link(make_context(c, {.alpn = {"h2", "http/1.1"}}), "localhost",
                  make_context(s, {.certificate = "server", .alpn = {"imap", "H2"}}));
    CHECK(client_failure(link) == "the peer sent the alert no_application_protocol");
    CHECK(link.server_status == tls_status::failed);
  });
}

TEST_CASE("tls engines: a resumed session agrees on the protocol again") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {.alpn = {"h2"}});
    const tls_context_ptr server = make_context(s, {.certificate = "server", .alpn = {"h2"}});
    for (int i = 0; i < 2; ++i) {
      tls_link link(client, "localhost", server);
      CHECK(link.settle());
      CHECK(link.client.engine->info().alpn == "h2");
      CHECK(link.server.engine->info().alpn == "h2");
      CHECK(link.client.engine->info().resumed == (i == 1));
    }
  });
}

TEST_CASE("tls engines: TLS 1.3 can be required, where the library supports it") {
  for_every_library([](const tls_library& library) {
    const tls_setup setup = {.certificate = "server", .min_version = tls_version::v1_3};
    const auto made = setup.configured(library.make);
    CHECK(made.has_value() == library.has_tls13);
    if (made) return;
    CHECK(made.error().code() == anyio::errc::tls);
    CHECK(made.error().operation() == "tls: min_version");
    CHECK(made.error().message() == "tls: min_version: this TLS library does not support that version");
  });
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (const bool at_client : {true, false}) {
      if (!(at_client ? c : s).has_tls13) continue;
      CAPTURE(at_client);
      const auto version = [&](bool wanted) { return wanted ? tls_version::v1_3 : tls_version::v1_2; };
      tls_link link(make_context(c, {.min_version = version(at_client)}), "localhost",
                    make_context(s, {.certificate = "server", .min_version = version(!at_client)}));
      if (speaks_tls13(c, s)) {
        CHECK(link.handshake());
        CHECK(link.client.engine->info().version == "TLSv1.3");
        check_talk(link);
        continue;
      }
      CHECK(!link.handshake());
      CHECK(link.client_status == tls_status::failed);
      CHECK(link.server_status == tls_status::failed);
      const std::string told = link.client.engine->last_error();
      CHECK(std::string_view(told).starts_with(alert_words));
      if (!at_client) CHECK(told == "the peer sent the alert protocol_version");
    }
  });
}

// ---- names ------------------------------------------------------------------------------------------

TEST_CASE("tls engines: a client continues only if the certificate has the name that it wants") {
  struct example {
    std::string_view name;
    bool covered;
    std::string_view heard;  // by the server
  };
  const example examples[] = {
      {"localhost", true, "localhost"},
      {"server.example", true, "server.example"},
      {"server.example.", true, "server.example"},
      {"SERVER.Example", true, "SERVER.Example"},
      {"a.wild.example", true, "a.wild.example"},
      {"A-1.Wild.Example", true, "A-1.Wild.Example"},
      {"127.0.0.1", true, ""},
      {"::1", true, ""},
      {"0:0:0::0:1", true, ""},
      {"::ffff:127.0.0.1", true, ""},
      {"::FFFF:7f00:1", true, ""},
      {"a.b.wild.example", false, "a.b.wild.example"},
      {"a_b.wild.example", false, "a_b.wild.example"},
      {"wild.example", false, "wild.example"},
      {"x.server.example", false, "x.server.example"},
      {"server.example.com", false, "server.example.com"},
      {"xserver.example", false, "xserver.example"},
      {"erver.example", false, "erver.example"},
      {"example", false, "example"},
      {"other.example", false, "other.example"},
      {"127.0.0.2", false, ""},
      {"127.0.0.10", false, ""},
      {"::2", false, ""},
      {"::127.0.0.1", false, ""},
      {"::ffff:127.0.0.2", false, ""},
  };
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (const example& e : examples) {
      CAPTURE(e.name);
      tls_link link(client, e.name, server);
      if (e.covered) {
        CHECK(link.handshake());
        CHECK(link.client.engine->info().server_name == e.heard);
      } else {
        CHECK(client_failure(link) == std::string_view(tls_reason::other_name));
        CHECK(std::string_view(link.server.engine->last_error()).starts_with(alert_words));
      }
      CHECK(link.server.engine->info().server_name == e.heard);
    }
  });
}

TEST_CASE("tls engines: a common name is ignored beside other names") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr server = make_context(s, {.certificate = "renamed"});
    tls_link wrong(make_context(c, {}), "server.example", server);
    CHECK(client_failure(wrong) == std::string_view(tls_reason::other_name));
    tls_link right(make_context(c, {}), "elsewhere.example", server);
    CHECK(right.handshake());
    tls_link address(make_context(c, {}), "127.0.0.1", server);
    CHECK(client_failure(address) == std::string_view(tls_reason::other_name));
  });
}

TEST_CASE("tls engines: a common name is ignored without other names too (RFC 9525)") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (const auto& [certificate, name] :
         {std::pair("common_name", "server.example"), std::pair("common_address", "127.0.0.1"),
          std::pair("mail", "server.example")}) {
      const char* const shown = certificate;  // clang 14 captures no structured binding
      CAPTURE(shown);
      tls_link link(make_context(c, {}), name, make_context(s, {.certificate = shown}));
      CHECK(client_failure(link) == std::string_view(tls_reason::other_name));
    }
  });
}

TEST_CASE("tls engines: a wildcard covers the whole first label, of a name with at least two more") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "wildcards"});
    tls_link right(client, "x.deep.w.example", server);
    CHECK(right.handshake());
    for (const char* name :
         {"localhost", "x.top", "wide.part.example", "w.part.example", "a.b.mid.example", "a.b.two.example",
          "b.two.example", "x.y.deep.w.example", "deep.w.example", "127.0.0.1"}) {
      CAPTURE(name);
      tls_link link(client, name, server);
      CHECK(client_failure(link) == std::string_view(tls_reason::other_name));
    }
  });
}

TEST_CASE("tls engines: a certificate without any name matches no server") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr server = make_context(s, {.certificate = "nameless"});
    for (const char* name : {"server.example", "127.0.0.1", "::1"}) {
      tls_link link(make_context(c, {}), name, server);
      CHECK(client_failure(link) == std::string_view(tls_reason::other_name));
    }
  });
}

TEST_CASE("tls engines: a client requires a name to verify, unless verification is off") {
  using namespace std::string_view_literals;
  const std::string too_long = std::string(250, 'n') + ".org";
  const std::string_view names[] = {
      ""sv, "."sv, "two words"sv, "line\nfeed"sv, "local\0host"sv, "local\x7fhost"sv, too_long,
  };
  for_every_library([&](const tls_library& library) {
    const tls_context_ptr strict = make_context(library, {});
    const tls_context_ptr lenient = make_context(library, {.verify = tls_verify::optional});
    const tls_context_ptr careless = make_context(library, {.verify = tls_verify::none});
    for (const std::string_view name : names) {
      CAPTURE(name);
      anyio::tls_pipe pipe;
      CHECK(strict->client(pipe, name) == nullptr);
      CHECK(lenient->client(pipe, name) == nullptr);
      CHECK(careless->client(pipe, name) != nullptr);
      CHECK(pipe.tx.empty());
    }
  });
  for_every_pair([](const tls_library& c, const tls_library& s) {
    tls_link link(make_context(c, {.verify = tls_verify::none}), "",
                  make_context(s, {.certificate = "server"}));
    CHECK(link.handshake());
    CHECK(link.client.engine->info().server_name == "");
    CHECK(link.server.engine->info().server_name == "");
    check_talk(link);
  });
}

TEST_CASE("tls engines: a server requires a certificate") {
  for_every_library([](const tls_library& library) {
    anyio::tls_pipe pipe;
    CHECK(make_context(library, {})->server(pipe) == nullptr);
  });
}

// ---- certificates -----------------------------------------------------------------------------------

/// A server whose certificate a client rejects, and the reason.
struct refused_server {
  std::string_view certificate;
  std::string_view ca;
  std::string_view why;
};
constexpr refused_server refused_servers[] = {
    {"expired", "ca", tls_reason::expired},
    {"future", "ca", tls_reason::not_yet_valid},
    {"self_signed", "ca", tls_reason::self_signed},
    {"server", "other_ca", tls_reason::unknown_authority},
    {"rsa", "other_ca", tls_reason::unknown_authority},
    {"leaf", "ca", tls_reason::unknown_authority},  // its intermediate certificate is not sent
    {"chain", "other_ca", tls_reason::unknown_authority},
    {"client_only", "ca", tls_reason::other_purpose},
};

TEST_CASE("tls engines: every engine rejects a bad certificate with the same text") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (const tls_verify verify : {tls_verify::peer, tls_verify::optional}) {
      for (const refused_server& e : refused_servers) {
        CAPTURE(e.certificate);
        CAPTURE(e.ca);
        CAPTURE(verify == tls_verify::peer);
        tls_link link(make_context(c, {.ca = e.ca, .verify = verify}), "localhost",
                      make_context(s, {.certificate = e.certificate}));
        if (e.why == tls_reason::other_purpose && !s.shows_any_certificate) {
          CHECK(std::string_view(client_failure(link)).starts_with(alert_words));
          CHECK(link.server_status == tls_status::failed);
          continue;
        }
        CHECK(client_failure(link) == e.why);
        CHECK(link.client_status == tls_status::failed);
        CHECK(link.server_status == tls_status::failed);
        CHECK(std::string_view(link.server.engine->last_error()).starts_with(alert_words));
      }
    }
  });
}

TEST_CASE("tls engines: without verification any certificate is accepted") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (const refused_server& e : refused_servers) {
      CAPTURE(e.certificate);
      if (e.why == tls_reason::other_purpose && !s.shows_any_certificate) continue;
      tls_link link(make_context(c, {.ca = e.ca, .verify = tls_verify::none}), "elsewhere.example",
                    make_context(s, {.certificate = e.certificate}));
      CHECK(link.handshake());
      const std::string shown = certificate_der(std::string(e.certificate) + ".pem");
      CHECK((link.client.engine->info().peer_certificate_der == shown));
      check_talk(link);
    }
  });
}

TEST_CASE("tls engines: only an authority can issue certificates") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const std::string shown = certificate_text("usurped.pem") + certificate_text("server.pem");
    const std::string key = certificate_text("usurped.key");
    anyio::tls_config config;
    config.certificate_pem = shown;
    config.private_key_pem = key;
    const tls_context_ptr server = s.make(config).value();
    tls_link link(make_context(c, {}), "localhost", server);
    CHECK(!client_failure(link).empty());
    CHECK(std::string_view(link.server.engine->last_error()).starts_with(alert_words));
  });
}

TEST_CASE("tls engines: a weak certificate is rejected, by the server's context or by the client") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_setup weak = {.certificate = "weak"};
    auto server = weak.configured(s.make);
    if (!server) {
      CHECK(server.error().code() == anyio::errc::tls);
      CHECK(server.error().operation() == "tls: certificate_file");
      return;
    }
    tls_link link(make_context(c, {}), "localhost", *server);
    CHECK(client_failure(link) == std::string_view(tls_reason::weak));
  });
}

TEST_CASE("tls engines: certificates of other key types, and with intermediate ones") {
  struct example {
    std::string_view certificate;
    std::string_view ca;
  };
  const example examples[] = {
      {"rsa", "ca"},
      {"chain", "ca"},
      {"chain", "intermediate"},
      {"leaf", "intermediate"},
      {"self_signed", "self_signed"},
  };
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    for (const example& e : examples) {
      CAPTURE(e.certificate);
      CAPTURE(e.ca);
      for (const std::size_t chunk : {std::size_t{7}, tls_link::whole}) {
        tls_link link(make_context(c, {.ca = e.ca}), "localhost",
                      make_context(s, {.certificate = e.certificate}), chunk);
        CHECK(link.handshake());
        CHECK(link.client.engine->last_error() == "");
        const std::string shown = certificate_der(std::string(e.certificate) + ".pem");
        CHECK((link.client.engine->info().peer_certificate_der == shown));
        check_talk(link);
      }
    }
  });
}

TEST_CASE("tls engines: a server sends the certificate for the requested name") {
  struct example {
    std::string_view name;
    std::string_view shown;
    bool fits;
  };
  const example examples[] = {
      {"other.example", "other", true},       {"OTHER.example", "other", true},
      {"a.other.example", "other", true},     {"localhost", "rsa", true},
      {"server.example", "server", true},     {"a.wild.example", "server", true},
      {"b.a.other.example", "server", false}, {"unknown.example", "server", false},
      {"127.0.0.1", "server", true},          {"exact.wild.example", "rsa", true},
  };
  const auto add = [](const tls_context_ptr& server, std::string_view name, std::string_view certificate) {
    const tls_setup setup = {.certificate = certificate};
    CHECK(setup.configured(
        [&](const anyio::tls_config& config) { return server->add_certificate(name, config).has_value(); }));
  };
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    add(server, "*.other.example", "other");
    add(server, "other.example", "other");
    add(server, "localhost", "rsa");
    add(server, "*.wild.example", "server");
    add(server, "exact.wild.example", "rsa");
    for (const example& e : examples) {
      CAPTURE(e.name);
      tls_link link(client, e.name, server);
      if (!e.fits) {
        CHECK(client_failure(link) == std::string_view(tls_reason::other_name));
        continue;
      }
      CHECK(link.handshake());
      const std::string shown = certificate_der(std::string(e.shown) + ".pem");
      CHECK((link.client.engine->info().peer_certificate_der == shown));
      check_talk(link);
    }
  });
}

TEST_CASE("tls engines: a server requests client certificates as configured") {
  struct example {
    tls_verify verify;
    std::string_view client;
    std::string_view refused;  // empty: accepted
  };
  const example examples[] = {
      {tls_verify::none, "", ""},
      {tls_verify::none, "client", ""},
      {tls_verify::none, "stranger", ""},
      {tls_verify::optional, "", ""},
      {tls_verify::optional, "client", ""},
      {tls_verify::optional, "stranger", tls_reason::unknown_authority},
      {tls_verify::optional, "expired", tls_reason::expired},
      {tls_verify::peer, "", tls_reason::none_shown},
      {tls_verify::peer, "client", ""},
      {tls_verify::peer, "stranger", tls_reason::unknown_authority},
      {tls_verify::peer, "expired", tls_reason::expired},
      {tls_verify::peer, "server", tls_reason::other_purpose},
      {tls_verify::peer, "self_signed", tls_reason::self_signed},
  };
  for_every_pair([&](const tls_library& c, const tls_library& s) {
    for (const example& e : examples) {
      CAPTURE(static_cast<int>(e.verify));
      CAPTURE(e.client);
      tls_link link(make_context(c, {.certificate = e.client}), "localhost",
                    make_context(s, {.certificate = "server", .verify_client = e.verify}));
      if (e.refused.empty()) {
        CHECK(link.handshake());
        std::string shown;
        if (e.verify != tls_verify::none && !e.client.empty())
          shown = certificate_der(std::string(e.client) + ".pem");
        CHECK((link.server.engine->info().peer_certificate_der == shown));
        check_talk(link);
      } else {
        CHECK(std::string_view(client_failure(link)).starts_with(alert_words));
        CHECK(link.server_status == tls_status::failed);
        CHECK(link.server.engine->last_error() == e.refused);
        if (!speaks_tls13(c, s)) CHECK(link.client_status == tls_status::failed);
      }
    }
  });
}

// ---- sessions -----------------------------------------------------------------------------------------

TEST_CASE("tls engines: a session is resumed only with the same server") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    for (const bool known_client : {false, true}) {
      CAPTURE(known_client);
      const tls_context_ptr client =
          make_context(c, {.certificate = known_client ? std::string_view("client") : ""});
      const tls_context_ptr server = make_context(
          s, {.certificate = "server", .verify_client = known_client ? tls_verify::peer : tls_verify::none});
      const std::string at_server = known_client ? certificate_der("client.pem") : "";
      const auto check_connection = [&](std::string_view name, bool resumed) {
        CAPTURE(name);
        tls_link link(client, name, server);
        CHECK(link.settle());
        const tls_info of_client = link.client.engine->info();
        const tls_info of_server = link.server.engine->info();
        CHECK(of_client.resumed == resumed);
        CHECK(of_server.resumed == resumed);
        CHECK((of_client.peer_certificate_der == certificate_der("server.pem")));
        CHECK((of_server.peer_certificate_der == at_server));
        CHECK(of_client.server_name == of_server.server_name);
        check_talk(link);
      };
      check_connection("server.example", false);
      check_connection("server.example", true);
      check_connection("server.example", true);
      check_connection("localhost", false);
      check_connection("127.0.0.1", false);
      check_connection("localhost", true);
      check_connection("127.0.0.1", true);
      check_connection("server.example", true);
    }
  });
}

TEST_CASE("tls engines: another context resumes nothing, and a server accepts no foreign sessions") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (int i = 0; i < 2; ++i) {
      tls_link link(make_context(c, {}), "localhost", server);
      CHECK(link.settle());
      CHECK(!link.client.engine->info().resumed);
    }
    for (int i = 0; i < 3; ++i) {
      tls_link link(client, "localhost", make_context(s, {.certificate = "server"}));
      CHECK(link.settle());
      CHECK(!link.client.engine->info().resumed);
      CHECK(!link.server.engine->info().resumed);
      check_talk(link);
    }
  });
}

TEST_CASE("tls engines: a session is kept only after a successful handshake") {
  for_every_pair([](const tls_library& c, const tls_library& s) {
    const tls_context_ptr client = make_context(c, {.ca = "other_ca"});
    const tls_context_ptr server = make_context(s, {.certificate = "server"});
    for (int i = 0; i < 3; ++i) {
      tls_link link(client, "localhost", server);
      CHECK(client_failure(link) == std::string_view(tls_reason::unknown_authority));
    }
  });
}

}  // namespace
