// The client's side of D-Bus (https://dbus.freedesktop.org/doc/dbus-specification.html), as far as a call
// without arguments needs it: authentication, messages, and descriptors that come with them. It finds no bus
// and prints nothing, so tests/simulation/test_sim_dbus.cpp can run it on a simulated network.
#pragma once

#include "anyio_net.hpp"

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include "printable.hpp"

namespace dbus {

/// The daemon violates the protocol.
inline anyio::error violation(const char* what) { return {anyio::errc::broken_resource, EPROTO, what}; }

/// Values of a message. Each is aligned from the beginning of the header or the body.
class writer {
 public:
  void number(std::uint32_t n) {
    align(4);
    for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>(n >> (8 * i));
  }
  void text(std::string_view s) {
    number(static_cast<std::uint32_t>(s.size()));
    bytes_ += s;
    bytes_ += '\0';
  }
  /// A field of the header: its number, the type of the value, the value.
  void field(char code, char type, std::string_view value) {
    align(8);
    bytes_.append({code, '\1', type, '\0'});
    text(value);
  }
  void align(std::size_t n) { bytes_.resize((bytes_.size() + n - 1) / n * n); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class reader {
 public:
  reader(std::string_view bytes, std::endian order) : bytes_(bytes), order_(order) {}

  bool failed() const { return failed_; }
  bool at_end() const { return failed_ || at_ == bytes_.size(); }
  std::size_t position() const { return at_; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(take(1)[0]); }
  std::uint32_t number() {
    align(4);
    const std::string_view four = take(4);
    std::uint32_t n = 0;
    for (std::size_t i = 0; i < 4; ++i)
      n = n << 8 | static_cast<unsigned char>(four[order_ == std::endian::big ? i : 3 - i]);
    return n;
  }
  std::string_view text() { return terminated(number()); }
  std::string_view signature() { return terminated(byte()); }
  void align(std::size_t n) { static_cast<void>(take((n - at_ % n) % n)); }

 private:
  std::string_view terminated(std::size_t size) {
    const std::string_view s = take(size);
    static_cast<void>(take(1));
    return s;
  }
  std::string_view take(std::size_t n) {
    failed_ = failed_ || n > bytes_.size() - at_;
    if (failed_) return std::string_view("\0\0\0\0\0\0\0\0", n < 8 ? n : 0);
    return bytes_.substr(std::exchange(at_, at_ + n), n);
  }
  std::string_view bytes_;
  std::endian order_;
  std::size_t at_ = 0;
  bool failed_ = false;
};

class message {
 public:
  char type = 0;
  std::endian order = std::endian::little;
  std::uint32_t reply_to = 0;
  std::uint32_t descriptors = 0;
  std::string error_name;
  std::string signature;
  std::string body;
  std::vector<anyio::unique_fd> fds;

  bool parse_fields(std::string_view bytes) {
    reader r(bytes, order);
    while (!r.at_end()) {
      r.align(8);
      if (r.at_end()) break;
      const std::uint8_t code = r.byte();
      const std::string kind(r.signature());
      if (kind == "u") {
        const std::uint32_t n = r.number();
        if (code == 5) reply_to = n;
        if (code == 9) descriptors = n;
      } else if (kind == "g") {
        const std::string_view s = r.signature();
        if (code == 8) signature = s;
      } else if (kind == "s" || kind == "o") {
        const std::string_view s = r.text();
        if (code == 4) error_name = s;
      } else {
        return false;
      }
    }
    return !r.failed();
  }
};

class bus {
 public:
  explicit bus(anyio::unix_stream stream) : stream_(std::move(stream)), in_(stream_, 64) {}

  anyio::task<> authenticate() {
    // The kernel tells the daemon who this is; the name is the user's number, in hexadecimal digits (SASL
    // EXTERNAL).
    std::string hello("\0AUTH EXTERNAL ", 15);
    for (const char digit : std::to_string(::getuid())) hello.append({'3', digit});
    co_await ask(hello, "OK");
    co_await ask("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD");
    co_await stream_.send("BEGIN\r\n");
    static_cast<void>(
        co_await call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"));
  }

  anyio::task<message> call(std::string destination, std::string path, std::string interface,
                            std::string member) {
    writer fields;
    fields.field(1, 'o', path);
    fields.field(2, 's', interface);
    fields.field(3, 's', member);
    fields.field(6, 's', destination);
    writer head;
    head.number('l' | 1 << 8 | 1 << 24);  // little-endian, a call, no flags, version 1
    head.number(0);                       // the body's size
    head.number(++serial_);
    head.number(static_cast<std::uint32_t>(fields.bytes().size()));
    writer padded = fields;
    padded.align(8);
    const anyio::const_buffer parts[] = {head.bytes(), padded.bytes()};
    co_await stream_.send(parts);
    for (;;) {
      message m = co_await receive();
      if (m.reply_to == serial_ && (m.type == 2 || m.type == 3)) co_return m;
    }
  }

 private:
  anyio::task<> ask(std::string request, std::string_view wanted) {
    co_await stream_.send(request + "\r\n");
    const std::string answer = co_await in_.receive_line(1000);
    if (!answer.starts_with(wanted)) co_await anyio::raise(violation("D-Bus: the daemon refuses"));
  }

  anyio::task<message> receive() {
    message m;
    const std::string start = co_await in_.receive_exactly(4);
    m.order = start[0] == 'B' ? std::endian::big : std::endian::little;
    m.type = start[1];
    const auto body_size = co_await in_.receive_int<std::uint32_t>(m.order);
    static_cast<void>(co_await in_.receive_int<std::uint32_t>(m.order));  // the serial number
    const auto fields_size = co_await in_.receive_int<std::uint32_t>(m.order);
    if (body_size > 1 << 27 || fields_size > 1 << 26)
      co_await anyio::raise(violation("D-Bus: a message is too long"));
    const std::string fields = co_await in_.receive_exactly((fields_size + 7) / 8 * 8);
    m.body = co_await in_.receive_exactly(body_size);
    if (!m.parse_fields(std::string_view(fields).substr(0, fields_size)))
      co_await anyio::raise(violation("D-Bus: a header is damaged"));
    m.fds = in_.take_fds();  // those that came with these bytes
    if (m.fds.size() != m.descriptors) co_await anyio::raise(violation("D-Bus: descriptors are missing"));
    co_return m;
  }

  anyio::unix_stream stream_;
  anyio::buffered_stream in_;
  std::uint32_t serial_ = 0;
};

/// Reads what is in a descriptor.
using contents_of = anyio::task<std::string> (*)(anyio::unique_fd&);

inline anyio::task<> append_value(std::string& lines, message& m, reader& values, std::string_view& types,
                                  contents_of contents) {
  const char type = types.front();
  types.remove_prefix(1);
  switch (type) {
    case 's':
    case 'o': lines += printable(values.text()) + '\n'; break;
    case 'g': lines += printable(values.signature()) + '\n'; break;
    case 'y': lines += std::to_string(int{values.byte()}) + '\n'; break;
    case 'b':
    case 'u': lines += std::to_string(values.number()) + '\n'; break;
    case 'i': lines += std::to_string(static_cast<std::int32_t>(values.number())) + '\n'; break;
    case 'h': {
      const std::uint32_t index = values.number();
      if (index >= m.fds.size()) co_await anyio::raise(violation("D-Bus: no such descriptor"));
      const std::string text = co_await contents(m.fds[index]);
      lines += printable(text) + '\n';
      break;
    }
    case 'a': {
      const std::size_t size = values.number();
      const std::size_t end = values.position() + size;
      if (types.empty()) co_await anyio::raise(violation("D-Bus: a damaged signature"));
      const std::string_view element = types;
      while (!values.failed() && values.position() < end) {
        types = element;
        co_await append_value(lines, m, values, types, contents);
      }
      if (size == 0) types.remove_prefix(types.find_first_not_of('a') + 1);  // the element's type
      break;
    }
    default: co_await anyio::raise(violation("D-Bus: a type that this example does not know"));
  }
}

/// The values of a message, one a line.
inline anyio::task<std::string> values_of(message& m, contents_of contents) {
  std::string lines;
  reader values(m.body, m.order);
  std::string_view types = m.signature;
  while (!types.empty() && !values.failed()) co_await append_value(lines, m, values, types, contents);
  if (values.failed()) co_await anyio::raise(violation("D-Bus: a damaged body"));
  co_return lines;
}

}  // namespace dbus
