// Bytes in order: added at the end, taken from the front.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>

#include "support/allocations.hpp"

namespace {

using anyio::byte_queue;
using anyio::mutable_buffer;

// A pipe that never moves holds a queue, and nothing copies its content.
static_assert(!std::is_copy_constructible_v<byte_queue> && !std::is_move_constructible_v<byte_queue>);
static_assert(std::is_nothrow_default_constructible_v<byte_queue>);

/// Appends a text the other way: into prepared room.
void put(byte_queue& queue, std::string_view text, std::size_t at_least) {
  const mutable_buffer room = queue.prepare(at_least);
  CHECK(room.size() >= at_least);
  std::memcpy(room.data(), text.data(), text.size());
  queue.commit(text.size());
}

TEST_CASE("byte_queue: a new queue is empty and holds no memory") {
  support::fail_allocations none;
  byte_queue queue;
  CHECK(queue.empty());
  CHECK(queue.size() == 0);
  CHECK(queue.data().empty());
  CHECK(queue.view().empty());
  CHECK(!queue.has_memory());
  queue.append({});
  queue.put_back({});
  queue.consume(0);
  queue.trim();
  CHECK(!queue.has_memory());
}

TEST_CASE("byte_queue: bytes leave in the order in which they were added") {
  byte_queue queue;
  queue.append("one");
  queue.append("");
  queue.append(" two");
  put(queue, " three", 100);
  CHECK(queue.view() == "one two three");
  CHECK(queue.size() == 13);
  CHECK(!queue.empty());
  CHECK(queue.data().size() == 13);
  CHECK(static_cast<char>(queue.data()[4]) == 't');
  queue.consume(4);
  CHECK(queue.view() == "two three");
  queue.append(" four");
  queue.consume(4);
  CHECK(queue.view() == "three four");
  queue.consume(10);
  CHECK(queue.empty());
  CHECK(queue.view().empty());
  queue.append("again");
  CHECK(queue.view() == "again");
}

TEST_CASE("byte_queue: all byte values are kept, NULs included") {
  std::string all(256, '\0');
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i);
  byte_queue queue;
  queue.append(all);
  CHECK((queue.view() == all));
}

TEST_CASE("byte_queue: taken bytes can be put back, and other bytes too") {
  byte_queue queue;
  queue.put_back("b");
  CHECK(queue.view() == "b");
  queue.append("cdef");
  queue.consume(2);
  queue.put_back("bc");
  CHECK(queue.view() == "bcdef");
  queue.put_back("a");
  CHECK(queue.view() == "abcdef");
  const std::string much(100'000, 'x');
  queue.put_back(much);
  CHECK((queue.view() == much + "abcdef"));
  queue.consume(much.size());
  queue.append("g");
  CHECK(queue.view() == "abcdefg");
}

TEST_CASE("byte_queue: fewer bytes than prepared may be committed, also none") {
  byte_queue queue;
  put(queue, "", 10);
  CHECK(queue.empty());
  put(queue, "text", 4000);
  put(queue, "", 4000);
  CHECK(queue.view() == "text");
  CHECK(queue.prepare(0).size() + queue.size() >= 4);
  CHECK(queue.view() == "text");
}

TEST_CASE("byte_queue: it grows as needed and keeps its bytes") {
  byte_queue queue;
  std::string expected;
  for (std::size_t size = 1; expected.size() < 300'000; size = size * 3 + 1) {
    const std::string piece(size, static_cast<char>('a' + size % 26));
    queue.append(piece);
    expected += piece;
    CHECK((queue.view() == expected));
  }
}

TEST_CASE("byte_queue: its memory is released when it becomes empty") {
  byte_queue queue;
  queue.append("text");
  CHECK(queue.has_memory());
  queue.trim();
  CHECK(queue.view() == "text");
  queue.consume(4);
  CHECK(!queue.has_memory());

  // Room that was never used.
  CHECK(queue.prepare(10).size() >= 10);
  CHECK(queue.has_memory());
  queue.trim();
  CHECK(!queue.has_memory());

  // A buffer that has grown beyond the usual size is not kept.
  queue.append(std::string(byte_queue::kept_limit + 1, 'x'));
  queue.consume(queue.size());
  CHECK(!queue.has_memory());
}

TEST_CASE("byte_queue: it does not allocate in steady state") {
  const std::string piece(1000, 'p');
  const std::string large(20'000, 'l');
  const auto round = [&](byte_queue& queue) {
    for (int i = 0; i < 50; ++i) {
      queue.append(piece);
      queue.append(piece);
      queue.consume(500);
      queue.put_back("back");
      std::memset(queue.prepare(700).data(), 'q', 700);
      queue.commit(700);
      queue.consume(queue.size());
      queue.append(large);
      queue.consume(queue.size());
      queue.trim();
    }
  };
  {
    byte_queue first;
    round(first);
  }
  byte_queue second;
  {
    support::fail_allocations none;
    round(second);
    // A queue that is never quite empty moves its bytes to the front rather than grow.
    second.append(piece);
    for (int i = 0; i < 1000; ++i) {
      second.append(piece);
      second.consume(1000);
    }
  }
  CHECK((second.view() == piece));
}

TEST_CASE("byte_queue: random operations leave the same bytes as in a std::string") {
  std::mt19937 random(1);
  byte_queue queue;
  std::string plain;
  std::string piece;
  bool same = true;
  for (int i = 0; i < 20'000; ++i) {
    piece.assign(random() % (random() % 50 == 0 ? 20'000 : 500), static_cast<char>('a' + random() % 26));
    switch (random() % 6) {
      case 0:
      case 1:
        queue.append(piece);
        plain += piece;
        break;
      case 2: {
        const mutable_buffer room = queue.prepare(piece.size());
        same = same && room.size() >= piece.size();
        std::copy(piece.begin(), piece.end(), reinterpret_cast<char*>(room.data()));
        queue.commit(piece.size());
        plain += piece;
        break;
      }
      case 3:
        piece.resize(piece.size() % 300);
        queue.put_back(piece);
        plain.insert(0, piece);
        break;
      case 4: {
        const std::size_t n = random() % 4 == 0 ? plain.size() : random() % (plain.size() + 1);
        queue.consume(n);
        plain.erase(0, n);
        break;
      }
      default: queue.trim(); break;
    }
    same = same && queue.view() == plain && queue.size() == plain.size() && queue.empty() == plain.empty();
  }
  CHECK(same);
}

}  // namespace
