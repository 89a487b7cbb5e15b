// What operations belong to, and the counted pointer to it. The functions that need the loop itself stand in
// loop.hpp. This part must not know what a resource is used for.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/recycler.hpp"
#include "base/traits.hpp"
#include "loop/ready_list.hpp"

#include <cstdint>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

enum side : unsigned { read_side, write_side };

/// The place of a resource in its loop's list of all resources.
struct resource_place : link {};

/// The object that operations belong to, for instance a socket. One reader and one writer may wait on it. It
/// is reference-counted, so that a stream may be moved or destroyed while operations of it exist. All
/// resources take blocks of one size, so that `loop::reserve` serves every kind.
class resource : public pooled<recycler::descriptors>, public resource_place {
 public:
  explicit resource(loop_core& core);
  resource(const resource&) = delete;
  resource& operator=(const resource&) = delete;
  ANYIO_NET_FN virtual ~resource();

  [[nodiscard]] loop_core& core() const noexcept { return core_; }
  /// Whether operations may use it: it was not closed, and the loop is there.
  [[nodiscard]] bool open() const noexcept { return open_; }
  /// Whether the resource is closed completely: `close` was called, or the loop is gone.
  [[nodiscard]] bool gone() const noexcept;
  [[nodiscard]] node* waiting(side s) const noexcept { return waiting_[s]; }
  void set_waiting(side s, node* n) noexcept { waiting_[s] = n; }
  [[nodiscard]] virtual int descriptor() const noexcept { return -1; }

  /// Closes the resource at once; its waiting operations are queued and will find it closed. Calling `close`
  /// again has no effect.
  void close() noexcept;
  /// Closes the resource for its users, and queues its waiting operations. Its descriptor stays open until
  /// `close`.
  void begin_closing() noexcept;
  /// Cancels the waiting operations: each makes one more attempt and then ends with `errc::cancelled`.
  void cancel() noexcept;
  /// Handles readiness bits from the poller.
  void ready(std::uint32_t bits) noexcept;
  void wake(side s) noexcept;
  /// Called after a waiting operation was withdrawn.
  virtual void withdrawn(side) noexcept {}

  /// Per side: an attempt would only return EAGAIN until the poller reports readiness, so none is needed.
  bool exhausted[2] = {false, false};
  /// Whether `exhausted` holds for every kind of receive, which then starts by waiting for the poller.
  bool poller_tells = false;
  /// No further event may arrive: continue to read until the end of the stream.
  bool read_to_end = false;
  /// Each wait adds the descriptor to the poller again; otherwise it stays there until the resource closes.
  bool entered_by_waits = false;

 protected:
  /// Closes the descriptor and releases other resources of the system. Called once.
  virtual void shut() noexcept = 0;

 private:
  template <class T>
  friend class ref;
  friend class loop_core;

  [[nodiscard]] static resource& at(link& place) noexcept {
    return static_cast<resource&>(static_cast<resource_place&>(place));
  }

  loop_core& core_;
  node* waiting_[2] = {nullptr, nullptr};
  std::uint32_t references_ = 0;
  bool open_;
  bool shut_ = false;  // `close` was called
};

/// An entry for a resource that waits until this loop closes a descriptor, because none were left, or until
/// the system has memory again.
struct starved : link {
  resource* waiter = nullptr;
};

/// A reference-counted pointer to a resource or a loop_core.
template <class T>
class ref {
 public:
  ref() = default;
  explicit ref(T* p) noexcept : pointer_(p) {
    if (pointer_) ++pointer_->references_;
  }
  ref(const ref& other) noexcept : ref(other.pointer_) {}
  ref(ref&& other) noexcept : pointer_(detail::exchange(other.pointer_, nullptr)) {}
  template <class U>
    requires converts_to<U*, T*>
  ref(const ref<U>& other) noexcept : ref(other.get()) {}
  template <class U>
    requires converts_to<U*, T*>
  ref(ref<U>&& other) noexcept : pointer_(detail::exchange(other.pointer_, nullptr)) {}
  ref& operator=(ref other) noexcept {
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~ref() {
    if (pointer_ && --pointer_->references_ == 0) [[unlikely]]
      end(pointer_);
  }
  T* get() const noexcept { return pointer_; }
  T* operator->() const noexcept { return pointer_; }
  T& operator*() const noexcept { return *pointer_; }
  explicit operator bool() const noexcept { return pointer_ != nullptr; }

 private:
  friend class resource;

  template <class U>
  friend class ref;

  // Out of line: otherwise it is inlined wherever a pointer is destroyed.
  [[gnu::noinline, gnu::cold]] static void end(T* p) noexcept { delete p; }

  T* pointer_ = nullptr;
};

/// A descriptor and its entry in the loop's table of watched descriptors.
struct registration {
  int fd = -1;
  std::uint32_t index = 0;
};

}}}  // namespace anyio::detail
