// What waits, and the lists it waits in.
//
// A node is anything that the loop can run: an operation, a task that was started, a posted call. It
// lies in one list at a time, the loop's ready list or its list of those that wait, and unlinks itself
// in O(1) wherever it is. Its face says how it is run and to whom it is handed over. This part must
// not know what an operation does.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"

#include <cstdint>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class loop_core;
struct node;

/// An element of a circular list; alone it points at itself.
struct link {
  link* previous = this;
  link* next = this;

  link() = default;
  link(const link&) = delete;
  link& operator=(const link&) = delete;
  ~link() { unlink(); }

  [[nodiscard]] bool linked() const noexcept { return next != this; }
  void unlink() noexcept {
    previous->next = next;
    next->previous = previous;
    previous = next = this;
  }
  /// Puts an unlinked element in front of this one; before a list's head that is its end.
  void insert_before(link& element) noexcept {
    element.previous = previous;
    element.next = this;
    previous->next = &element;
    previous = &element;
  }
  /// Moves all elements of another list to the end of this one.
  void splice(link& other) noexcept {
    if (!other.linked()) return;
    previous->next = other.next;
    other.next->previous = previous;
    other.previous->next = this;
    previous = other.previous;
    other.previous = other.next = &other;
  }
};

/// What `loop::dump` tells of a node.
struct description {
  const char* operation;
  int fd = -1;
};

/// How a node is run, and who waits for it: the table that stands in for virtual functions, since it
/// changes with every start.
struct face {
  void (*run)(node&);
  void (*abandon)(node&);  // the loop ends: destroy what was to be called
  node* (*owner)(node&);   // who waits for it, null at the end of the chain
  description (*describe)(node&);
};

/// What the loop can run. Pending from `begin` to `retire`; only an idle one may be moved.
struct node : link {
  const face* how = nullptr;
  loop_core* core = nullptr;  // set while pending
  std::uint32_t since = 0;    // milliseconds of the loop's clock, for dump
  errc early = errc::ok;      // an error that was there when it was begun
  bool cancelled = false;     // one more attempt, then this
  bool finished = false;      // its outcome is there, and is about to be taken
  bool attempted = false;     // in vain, by who awaits it: something will queue it
  bool again = false;         // set by an attempt that stopped to let others run: no event will come
  bool queued = false;        // is in the ready list, if it is in a list
  bool awaited = false;       // by a coroutine, while pending: not by a callable
  bool made = false;          // of a resource's operation: not one that was only declared

  node() = default;
  node(node&& other) noexcept : link(), made(other.made) {
    ANYIO_NET_ASSERT(!other.pending() && "an operation that has been started cannot be moved");
  }
  node& operator=(node&& other) noexcept {
    ANYIO_NET_ASSERT(!other.pending() && "an operation that has been started cannot be moved");
    retire();
    made = other.made;
    return *this;
  }
  ~node() { retire(); }

  [[nodiscard]] bool pending() const noexcept { return core != nullptr; }
  void begin(loop_core& on, const face& f) noexcept;
  void retire() noexcept;
};

}}}  // namespace anyio::detail
