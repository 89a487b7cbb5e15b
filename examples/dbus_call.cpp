// Calls a method without arguments on the D-Bus session bus, and prints its reply: strings, numbers, and the
// content of descriptors that it contains.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/dbus_call.cpp -o dbus_call
//   ./dbus_call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus.ListNames
//
// The protocol is at https://dbus.freedesktop.org/doc/dbus-specification.html.
#include "anyio_net.hpp"

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include "support/printable.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: dbus_call DESTINATION PATH INTERFACE.MEMBER\n"
    "\n"
    "Calls MEMBER on the bus at DBUS_SESSION_BUS_ADDRESS, and prints the values of the reply, one a line. "
    "For a\n"
    "descriptor it prints what can be read from it.\n"
    "\n"
    "exit code: 0 after a reply, 1 after an error, 2 for a wrong command line\n";

static anyio::error violation(const char* what) {
  return anyio::error(anyio::errc::broken_resource, EPROTO, what);
}

// Values of a message. Each is aligned from the beginning of the header or the body.
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
  // A field of the header: its number, the type of the value, the value.
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
    // The daemon asks the kernel for the user; the name is the user's number, in hexadecimal digits (SASL
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
    m.fds = in_.take_fds();  // the descriptors that came with these bytes
    if (m.fds.size() != m.descriptors) co_await anyio::raise(violation("D-Bus: descriptors are missing"));
    co_return m;
  }

  anyio::unix_stream stream_;
  anyio::buffered_stream in_;
  std::uint32_t serial_ = 0;
};

static anyio::task<> print_descriptor(anyio::unique_fd& fd) {
  std::string text;
  char block[4096];
  for (;;) {
    co_await anyio::wait_readable(fd.get());
    const ssize_t n = ::read(fd.get(), block, sizeof block);
    if (n <= 0) break;
    text.append(block, static_cast<std::size_t>(n));
  }
  std::cout << printable(text) << '\n';
}

static anyio::task<> print_value(message& m, reader& values, std::string_view& types) {
  const char type = types.front();
  types.remove_prefix(1);
  switch (type) {
    case 's':
    case 'o': std::cout << printable(std::string(values.text())) << '\n'; break;
    case 'g': std::cout << printable(std::string(values.signature())) << '\n'; break;
    case 'y': std::cout << int{values.byte()} << '\n'; break;
    case 'b':
    case 'u': std::cout << values.number() << '\n'; break;
    case 'i': std::cout << static_cast<std::int32_t>(values.number()) << '\n'; break;
    case 'h': {
      const std::uint32_t index = values.number();
      if (index >= m.fds.size()) co_await anyio::raise(violation("D-Bus: no such descriptor"));
      co_await print_descriptor(m.fds[index]);
      break;
    }
    case 'a': {
      const std::size_t size = values.number();
      const std::size_t end = values.position() + size;
      if (types.empty()) co_await anyio::raise(violation("D-Bus: a damaged signature"));
      const std::string_view element = types;
      while (!values.failed() && values.position() < end) {
        types = element;
        co_await print_value(m, values, types);
      }
      if (size == 0) types.remove_prefix(1);
      break;
    }
    default: co_await anyio::raise(violation("D-Bus: a type that this example does not know"));
  }
}

static anyio::task<int> program(std::string path, std::string destination, std::string object,
                                std::string method) {
  anyio::unix_stream stream = co_await anyio::fail_after(10s, anyio::connect_unix(path));
  bus b(std::move(stream));
  co_await anyio::fail_after(10s, b.authenticate());
  const std::size_t dot = method.rfind('.');
  message reply = co_await anyio::fail_after(
      25s, b.call(std::move(destination), std::move(object), method.substr(0, dot), method.substr(dot + 1)));
  if (reply.type == 3) {
    std::cerr << "dbus_call: " << printable(reply.error_name) << '\n';
    co_return 1;
  }
  reader values(reply.body, reply.order);
  std::string_view types = reply.signature;
  while (!types.empty() && !values.failed()) co_await print_value(reply, values, types);
  if (values.failed()) co_await anyio::raise(violation("D-Bus: a damaged body"));
  co_return 0;
}

// The path in "unix:path=/run/bus,guid=…" or "unix:abstract=/tmp/bus,guid=…"; empty if there is none.
static std::string path_of(std::string_view address) {
  for (const std::string_view kind : {"unix:path=", "unix:abstract="}) {
    if (!address.starts_with(kind)) continue;
    const std::string_view rest = address.substr(kind.size());
    return (kind == "unix:path=" ? "" : std::string(1, '\0')) + std::string(rest.substr(0, rest.find(',')));
  }
  return {};
}

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (argc == 2 && (word == "--help" || word == "-h")) return std::cout << help, 0;
  if (argc != 4 || std::string_view(argv[3]).find('.') == std::string_view::npos) return std::cerr << help, 2;
  const char* const address = std::getenv("DBUS_SESSION_BUS_ADDRESS");
  const std::string path = path_of(address != nullptr ? address : "");
  if (path.empty()) return std::cerr << "dbus_call: DBUS_SESSION_BUS_ADDRESS names no UNIX socket\n", 1;
  try {
    return anyio::run(program(path, argv[1], argv[2], argv[3]));
  } catch (const anyio::exception& e) {
    std::cerr << "dbus_call: " << e.what() << '\n';
    return 1;
  }
}
