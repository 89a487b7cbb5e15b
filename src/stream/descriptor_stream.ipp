// Releasing a descriptor.
#pragma once

#include "stream/descriptor_stream.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_COLD int detail::descriptor_resource::release(bool restore) noexcept {
  if (gone()) return -1;
  const int fd = registration_.fd;
  core().forget(registration_, false);
  close();
  if (restore && was_blocking) static_cast<void>(files_of(core().system()).make_blocking(fd));
  return fd;
}

ANYIO_NET_FN int descriptor_stream::release(bool restore) noexcept {
  return resource_ ? static_cast<detail::descriptor_resource&>(*resource_).release(restore) : -1;
}

}}  // namespace anyio
