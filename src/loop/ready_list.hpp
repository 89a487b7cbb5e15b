// Nodes of the loop, and their lists.
//
// A node is anything that the loop can run: an operation, a started task, a posted call. It is in at most
// one list at a time, the loop's ready list or its list of waiting nodes, and unlinks itself in O(1) from
// any list. Its face says how it is run and who receives its result. This part must not know what an
// operation does.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"

#include <cstddef>
#include <cstdint>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class loop_core;
struct node;

/// An element of a list. It is in at most one list.
struct link {
  link* previous = nullptr;
  link* next = nullptr;  // null: it is in no list

  link() = default;
  link(const link&) = delete;
  link& operator=(const link&) = delete;
  ~link() { unlink(); }

  [[nodiscard]] bool linked() const noexcept { return next != nullptr; }
  /// Has no effect if it is not linked.
  [[gnu::always_inline]] void unlink() noexcept {
    if (linked()) take_out();
  }
  /// Unlinks an element that is linked.
  void take_out() noexcept {
    previous->next = next;
    next->previous = previous;
    next = nullptr;
  }
};

/// A circular list of elements that belong to others. The list itself is the link between the last and the
/// first: `for (link* l = all.next; l != &all; l = l->next)`.
struct list : link {
  list() noexcept { previous = next = this; }

  [[nodiscard]] bool empty() const noexcept { return next == this; }
  /// Appends an element that is not linked.
  void push_back(link& element) noexcept { insert(element, *previous, *this); }
  /// Inserts an element that is not linked as the first.
  void push_front(link& element) noexcept { insert(element, *this, *next); }
  /// Unlinks the first element and returns it; null if the list is empty.
  link* pop_front() noexcept {
    link* const first = next;
    if (first == this) return nullptr;
    first->take_out();
    return first;
  }
  /// Moves all elements of another list to the end of this one.
  void splice(list& other) noexcept {
    if (other.empty()) return;
    previous->next = other.next;
    other.next->previous = previous;
    other.previous->next = this;
    previous = other.previous;
    other.previous = other.next = &other;
  }

 private:
  static void insert(link& element, link& before, link& after) noexcept {
    element.previous = &before;
    element.next = &after;
    before.next = &element;
    after.previous = &element;
  }
};

/// The description of a node in `loop::dump`. It fits two registers, so that hardly any code makes it.
struct description {
  const char* operation;
  int fd = -1;
  std::uint32_t moved = no_count;

  static constexpr std::uint32_t no_count = 0xffffffff;
  static constexpr std::uint32_t in_chunks = 0x80000000;
  static constexpr unsigned bits_of_chunk = 16;

  /// A number of bytes as `moved`: from 2 GiB on in chunks of 64 KiB.
  [[nodiscard]] static constexpr std::uint32_t count(std::uint64_t bytes) noexcept {
    return static_cast<std::uint32_t>(bytes < in_chunks ? bytes : in_chunks | bytes >> bits_of_chunk);
  }
  /// The number of bytes of `moved`, which is not `no_count`.
  [[nodiscard]] constexpr std::uint64_t bytes() const noexcept {
    return (moved & in_chunks) == 0 ? moved : std::uint64_t{moved & ~in_chunks} << bits_of_chunk;
  }
};

/// The functions that run and describe a node, and return its owner. This table is used instead of virtual
/// functions, since it can differ at each start.
struct face {
  void (*run)(node&);
  void (*abandon)(node&);  // the loop ends: destroy the callable without a call
  node* (*owner)(node&);   // the node that waits for it, null at the end of the chain
  description (*describe)(node&);
};

/// An object that the loop can run. It is pending from `begin` to `retire`; only an idle node may be moved.
struct node : link {
  const face* how = nullptr;
  loop_core* core = nullptr;  // set while pending
  std::uint32_t since = 0;    // milliseconds of the loop's clock, for dump
  bool made = false;          // for operations of a resource: false if only declared
  bool yields = false;        // holds the place of a reader or writer only until another takes it
  bool attempted = false;     // the awaiting task tried in vain: an event will queue it
  // `begin` sets these; side by side they take few stores.
  errc early = errc::ok;   // an error that was found when the node began
  bool again = false;      // an attempt stopped to let others run: no event will arrive
  bool cancelled = false;  // make one more attempt, then end as cancelled
  bool finished = false;   // the outcome is available, and will be taken soon
  bool queued = false;     // in the ready list, if it is in a list; not parked
  bool awaited = false;    // by a coroutine, not by a callable

  node() = default;
  node(node&& other) noexcept : link(), made(other.made) {
    ANYIO_NET_ASSERT(!other.pending() && "a pending operation cannot be moved");
  }
  ANYIO_NET_HOT node& operator=(node&& other) noexcept {
    ANYIO_NET_ASSERT(!other.pending() && "a pending operation cannot be moved");
    retire();
    made = other.made;
    return *this;
  }
  ~node() { retire(); }

  [[nodiscard]] bool pending() const noexcept { return core != nullptr; }
  void begin(loop_core& on, const face& f, errc known = errc::ok) noexcept;
  /// Ends being pending, if it is.
  ANYIO_NET_HOT void retire() noexcept {
    if (pending()) [[unlikely]]
      end_pending();
  }
  void end_pending() noexcept;
};

/// The owner of a node that a foreign coroutine waits for; what that coroutine is part of is unknown.
alignas(node) inline constinit std::byte unknown_owner_place[sizeof(node)] = {};
inline node* unknown_owner() noexcept { return static_cast<node*>(static_cast<void*>(unknown_owner_place)); }

}}}  // namespace anyio::detail
