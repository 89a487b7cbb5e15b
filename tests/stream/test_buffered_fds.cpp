// Integers from a buffered stream, and descriptors that come through one.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/passed_files.hpp"
#include "support/sockets.hpp"

namespace {

using namespace std::string_literals;
using anyio::errc;
using anyio::unique_fd;
using support::by_callback;
using support::by_coroutine;
using support::make_file;
using support::open_count;
using support::waiting;

// --- integers

TEST_CASE_TEMPLATE("receive_int receives integers of any size, sign and byte order", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto pair = anyio::create_memory_stream_pair();
  anyio::buffered_stream b(pair.first);
  CHECK(Face::get(pair.second.send("\x01\x02\x03\x04\x05\x06\x07\x08"s)).has_value());
  CHECK(Face::get(b.receive_int<std::uint8_t>()).value_or(0) == 1);
  CHECK(Face::get(b.receive_int<std::uint16_t>()).value_or(0) == 0x0203);
  CHECK(Face::get(b.receive_int<std::uint16_t>(std::endian::little)).value_or(0) == 0x0504);
  CHECK(Face::get(b.receive_exactly(3)).value_or("") == "\x06\x07\x08");
  CHECK(Face::get(pair.second.send("\xff\xff\xff\xfe\x80\x00\x00\x00\x00\x00\x00\x01"s)).has_value());
  CHECK(Face::get(b.receive_int<std::int32_t>()).value_or(0) == -2);
  CHECK(Face::get(b.receive_int<std::int64_t>()).value_or(0) == std::numeric_limits<std::int64_t>::min() + 1);
  CHECK(Face::get(pair.second.send("\xfe\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x80z"s)).has_value());
  CHECK(Face::get(b.receive_int<std::int32_t>(std::endian::little)).value_or(0) == -2);
  CHECK(Face::get(b.receive_int<std::uint64_t>(std::endian::little)).value_or(0) == 0x8000000000000001u);
  CHECK(Face::get(b.receive_int<char>()).value_or('?') == 'z');
  const std::uint32_t own = 0x01020304;
  CHECK(Face::get(pair.second.send(anyio::const_buffer(&own, sizeof own))).has_value());
  CHECK(Face::get(b.receive_int<std::uint32_t>(std::endian::native)).value_or(0) == own);
}

TEST_CASE_TEMPLATE("receive_int waits for all bytes, and loses none when it is cancelled or the stream ends",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto pair = anyio::create_memory_stream_pair();
  anyio::buffered_stream b(pair.first);
  CHECK(Face::get(pair.second.send("ab")).has_value());
  {
    waiting<std::uint32_t> reading;
    Face::start(b.receive_int<std::uint32_t>(), reading);
    support::settle();
    CHECK(!reading.done());
    CHECK(Face::get(b.receive_int<std::uint8_t>()).error() == errc::busy_resource);
    CHECK(Face::get(pair.second.send("cd")).has_value());
    CHECK(reading.get().value_or(0) == 0x61626364);
  }
  CHECK(Face::get(pair.second.send("ef")).has_value());
  {
    CHECK(Face::get(anyio::fail_after(anyio::duration(0), b.receive_int<std::uint32_t>())).error() ==
          errc::timed_out);
  }
  CHECK(Face::get(pair.second.send_eof()).has_value());
  const anyio::error early = Face::get(b.receive_int<std::uint32_t>()).error();
  CHECK(early == errc::incomplete_read);
  CHECK(early.operation() == "receive_int");
  CHECK(b.buffer() == "ef");
  CHECK(Face::get(b.receive_int<std::uint16_t>()).value_or(0) == 0x6566);
  CHECK(Face::get(b.receive_int<std::uint16_t>()).error() == errc::end_of_stream);
  b.close();
  CHECK(Face::get(b.receive_int<std::uint16_t>()).error() == errc::closed_resource);
  CHECK(Face::get(decltype(b.receive_int<int>())()).error() == errc::invalid_argument);
  CHECK(Face::get(anyio::buffered_stream().receive_int<int>()).error() == errc::closed_resource);
}

TEST_CASE("the same operation can receive an integer again") {
  anyio::run([]() -> anyio::task<> {
    auto pair = anyio::create_memory_stream_pair();
    anyio::buffered_stream b(pair.first);
    auto number = b.receive_int<std::uint16_t>();
    for (std::uint16_t i = 0; i < 3; ++i) {
      co_await pair.second.send("12");
      CHECK(co_await number == 0x3132);
    }
  });
}

// --- descriptors

ino_t file_of(const unique_fd& fd) { return support::file_of(fd.get()); }

struct ends {
  std::pair<anyio::unix_stream, anyio::unix_stream> pair = anyio::create_unix_stream_pair().value();
  anyio::unix_stream& to = pair.first;
  anyio::unix_stream& from = pair.second;
  unique_fd files[3] = {make_file(), make_file(), make_file()};

  template <class Face>
  bool send(std::string_view text, std::vector<int> which) {
    std::vector<int> fds;
    for (const int i : which) fds.push_back(files[i].get());
    return Face::get(to.send_fds(text, fds)).has_value();
  }
  bool is(const unique_fd& fd, int which) const { return file_of(fd) == file_of(files[which]); }
};

TEST_CASE_TEMPLATE("descriptors belong to the message that brought them", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  CHECK(b.take_fds().empty());
  // All of it is there before the first read.
  CHECK(Face::get(e.to.send("before ")).has_value());
  CHECK(e.send<Face>("one\n", {0}));
  CHECK(e.send<Face>("two\n", {1, 2}));
  CHECK(Face::get(e.to.send("after\n")).has_value());
  CHECK(Face::get(b.receive_exactly(7)).value_or("") == "before ");
  CHECK(b.take_fds().empty());
  CHECK(Face::get(b.receive_line()).value_or("") == "one");
  std::vector<unique_fd> fds = b.take_fds();
  CHECK(fds.size() == 1);
  CHECK(e.is(fds.at(0), 0));
  CHECK(support::is_close_on_exec(fds[0].get()));
  CHECK(b.take_fds().empty());
  CHECK(Face::get(b.receive_exactly(1)).value_or("") == "t");  // with the first byte of the message
  fds = b.take_fds();
  CHECK(fds.size() == 2);
  CHECK(e.is(fds.at(0), 1));
  CHECK(e.is(fds.at(1), 2));
  CHECK(Face::get(b.receive_line()).value_or("") == "wo");
  CHECK(Face::get(b.receive_line()).value_or("") == "after");
  CHECK(b.take_fds().empty());
}

TEST_CASE_TEMPLATE("descriptors that are not taken wait, in order", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  CHECK(e.send<Face>("one\n", {0}));
  CHECK(e.send<Face>("two\n", {1}));
  CHECK(Face::get(b.receive_line()).value_or("") == "one");
  CHECK(Face::get(b.receive_line()).value_or("") == "two");
  anyio::buffered_stream moved = std::move(b);
  CHECK(b.take_fds().empty());
  const std::vector<unique_fd> fds = moved.take_fds();
  CHECK(fds.size() == 2);
  CHECK(e.is(fds.at(0), 0));
  CHECK(e.is(fds.at(1), 1));
}

TEST_CASE_TEMPLATE("every kind of read keeps descriptors", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  char room[5];
  CHECK(e.send<Face>("whole", {0}));
  CHECK(Face::get(b.receive_exactly(room)).has_value());
  CHECK(b.take_fds().size() == 1);
  CHECK(e.send<Face>("whole", {0}));
  CHECK(Face::get(b.receive(room)).value_or(0) == 5);
  CHECK(b.take_fds().size() == 1);
  CHECK(e.send<Face>("whole", {0}));
  CHECK(Face::get(b.receive()).value_or("") == "whole");
  CHECK(b.take_fds().size() == 1);
  CHECK(e.send<Face>("whole", {0}));
  CHECK(Face::get(b.receive_int<std::uint32_t>()).has_value());
  CHECK(b.take_fds().size() == 1);
  CHECK(Face::get(b.receive_until("e", 10)).value_or("") == "");
  b.feed_data("fed ");
  CHECK(e.send<Face>("whole", {0}));
  CHECK(Face::get(b.receive_exactly(4)).value_or("") == "fed ");
  CHECK(b.take_fds().empty());
  CHECK(Face::get(b.receive_exactly(5)).value_or("") == "whole");
  CHECK(b.take_fds().size() == 1);
  std::vector<char> large(100000, 'x');
  waiting<void> sending;
  waiting<void> reading;
  const int fds[] = {0};
  Face::start(b.receive_exactly(anyio::mutable_buffer(large)), reading);
  const std::string text(100000, 'y');
  Face::start(e.to.send_fds(text, fds), sending);
  CHECK(reading.get().has_value());
  CHECK(sending.get().has_value());
  CHECK(std::string(large.begin(), large.end()) == text);
  CHECK(b.take_fds().size() == 1);
}

TEST_CASE_TEMPLATE("a cancelled read loses no descriptor", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  {
    waiting<std::string> reading;
    Face::start(b.receive_exactly(6), reading);
    CHECK(e.send<Face>("abc", {0}));
    support::settle();
    CHECK(!reading.done());
    b.socket()->cancel();
    CHECK(reading.get().error() == errc::cancelled);
  }
  CHECK(b.take_fds().empty());
  CHECK(Face::get(e.to.send("def")).has_value());
  CHECK(Face::get(b.receive_exactly(6)).value_or("") == "abcdef");
  CHECK(b.take_fds().size() == 1);
}

TEST_CASE_TEMPLATE("more descriptors than max_fds are closed, and end the reading", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  ends e;
  const std::size_t before = open_count();
  anyio::buffered_stream b(e.from, 2);
  CHECK(e.send<Face>("one\n", {0, 1}));
  CHECK(e.send<Face>("two\n", {2}));
  CHECK(Face::get(b.receive_line()).value_or("") == "one");
  const anyio::error failed = Face::get(b.receive_line()).error();
  CHECK(failed == errc::fds_truncated);
  CHECK(failed.operation() == "receive_line");
  CHECK(open_count() == before + 2);  // the two that are kept
  CHECK(b.take_fds().size() == 2);
  CHECK(open_count() == before);
  CHECK(Face::get(e.to.send("three\n")).has_value());
  CHECK(Face::get(b.receive_line()).error() == errc::fds_truncated);
  CHECK(Face::get(b.send("still sends")).has_value());
}

TEST_CASE_TEMPLATE("one message with more than max_fds leaks none", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  ends e;
  const std::size_t before = open_count();
  for (const std::size_t most : {0u, 1u, 2u}) {
    auto p = anyio::create_unix_stream_pair().value();
    anyio::buffered_stream b(p.second, most);
    const int fds[] = {0, 1, 2};
    CHECK(Face::get(p.first.send_fds("three", fds)).has_value());
    CHECK(Face::get(b.receive()).error() == errc::fds_truncated);
    CHECK(b.take_fds().empty());
  }
  CHECK(open_count() == before);
}

TEST_CASE("kept descriptors are closed with the stream") {
  anyio::loop loop;
  ends e;
  const std::size_t before = open_count();
  {
    anyio::buffered_stream b(e.from, 8);
    CHECK(e.send<by_callback>("x", {0, 1, 2}));
    CHECK(by_callback::get(b.receive()).has_value());
    CHECK(open_count() == before + 3);
  }
  CHECK(open_count() == before);
  CHECK(e.from);  // borrowed
}

TEST_CASE("without max_fds descriptors are closed, and a closed stream has none") {
  anyio::loop loop;
  ends e;
  const std::size_t before = open_count();
  anyio::buffered_stream b(e.from);
  CHECK(e.send<by_callback>("x", {0}));
  CHECK(by_callback::get(b.receive()).has_value());
  CHECK(b.take_fds().empty());
  CHECK(open_count() == before);
  anyio::unix_stream closed;
  anyio::buffered_stream none(closed, 3);
  CHECK(!none);
  CHECK(none.take_fds().empty());
  CHECK(anyio::buffered_stream().take_fds().empty());
}

TEST_CASE("bytes before a message with descriptors are told from it at any length") {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  const std::string message(1000, 'm');
  for (std::size_t before : {1u, 2u, 3u, 100u, 1000u, 4095u, 4096u, 5000u}) {
    CAPTURE(before);
    CHECK(by_callback::get(e.to.send(std::string(before, 'b'))).has_value());
    CHECK(e.send<by_callback>(message, {0}));
    std::vector<char> room(before);
    const bool by_string = before % 2 == 0;
    if (by_string)
      CHECK(by_callback::get(b.receive_exactly(before)).value_or("") == std::string(before, 'b'));
    if (!by_string) CHECK(by_callback::get(b.receive_exactly(anyio::mutable_buffer(room))).has_value());
    CHECK(b.take_fds().empty());
    CHECK(by_callback::get(b.receive_exactly(message.size())).value_or("") == message);
    CHECK(b.take_fds().size() == 1);
  }
  CHECK(by_callback::get(e.to.send_eof()).has_value());
  CHECK(by_callback::get(b.receive()).error() == errc::end_of_stream);
  CHECK(by_callback::get(b.receive()).error() == errc::end_of_stream);
}

TEST_CASE("a short read before a message leaves its descriptors to it") {
  anyio::loop loop;
  ends e;
  anyio::buffered_stream b(e.from, 8);
  for (const bool into_buffer : {true, false}) {
    CAPTURE(into_buffer);
    CHECK(by_callback::get(e.to.send("aaa")).has_value());
    CHECK(e.send<by_callback>("m", {0}));
    for (int i = 0; i < 3; ++i) {
      char one = 'x';
      if (into_buffer)
        CHECK(by_callback::get(b.receive(anyio::mutable_buffer(&one, 1))).value_or(0) == 1);
      else
        one = by_callback::get(b.receive(1)).value_or("x")[0];
      CHECK(one == 'a');
      CHECK(b.take_fds().empty());
    }
    CHECK(by_callback::get(b.receive_exactly(1)).value_or("") == "m");
    CHECK(b.take_fds().size() == 1);
  }
}

}  // namespace
