// A mutex that costs nothing without threads. Only for tables that several loops share: the library's hot
// paths take no lock.
#pragma once

#include "base/config.hpp"

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

#if !defined(ANYIO_NET_NO_THREADS)
using process_mutex = std::mutex;
using process_lock = std::lock_guard<std::mutex>;
#else
struct process_mutex {};
struct process_lock {
  explicit process_lock(process_mutex&) noexcept {}
  ~process_lock() {}  // so that an unused one causes no warning
};
#endif

}}}  // namespace anyio::detail
