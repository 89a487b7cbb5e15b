// A terminal for a serial port: what arrives is printed, and standard input is sent.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/serial_port.cpp -o serial_port
//   ./serial_port --speed 115200 /dev/ttyUSB0
#include "anyio_net.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "support/program.hpp"

static constexpr std::string_view help =
    "usage: serial_port [--speed BAUD] [--flow] DEVICE\n"
    "\n"
    "Opens DEVICE with 8 data bits, no parity and 1 stop bit, at BAUD (default: 9600), with --flow with "
    "flow\n"
    "control by RTS and CTS. No byte is changed on its way. After the end of standard input, what arrives "
    "is\n"
    "still printed. Ctrl-C, or the loss of the device, ends the program, which restores the settings of the\n"
    "device.\n"
    "\n"
    "exit code: 0 after Ctrl-C or the loss of the device, 1 for an error, 2 for a wrong command line\n";

struct settings {
  std::string device;
  speed_t speed = B9600;
  bool flow = false;

  settings() = default;
};

static std::optional<speed_t> speed_of(std::string_view word) {
  static constexpr std::pair<unsigned, speed_t> speeds[] = {
    {300, B300},
    {1200, B1200},
    {2400, B2400},
    {4800, B4800},
    {9600, B9600},
    {19200, B19200},
    {38400, B38400},
    {57600, B57600},
    {115200, B115200},
    {230400, B230400},
#if defined(B921600)
    {460800, B460800},
    {921600, B921600},
#endif
  };
  unsigned baud = 0;
  const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), baud);
  if (failure != std::errc() || end != word.data() + word.size()) return std::nullopt;
  for (const auto& [number, speed] : speeds)
    if (number == baud) return speed;
  return std::nullopt;
}

class serial_port {
 public:
  anyio::fd_stream stream;

  static anyio::result<serial_port> open(const settings& s) {
    // Non-blocking: without it open(2) waits for a modem's carrier. O_NOCTTY: a ^C that arrives is a byte.
    anyio::unique_fd fd(::open(s.device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return last_error("open the device");
    serial_port port;
    if (::tcgetattr(fd.get(), &port.before_) != 0) return last_error("read the settings of the device");
    termios wanted = port.before_;
    ::cfmakeraw(&wanted);
    wanted.c_cflag |= CLOCAL | CREAD;
    wanted.c_cflag &= ~static_cast<tcflag_t>(CSTOPB | CRTSCTS);
    if (s.flow) wanted.c_cflag |= CRTSCTS;
    wanted.c_cc[VMIN] = 1;
    wanted.c_cc[VTIME] = 0;
    ::cfsetispeed(&wanted, s.speed);
    ::cfsetospeed(&wanted, s.speed);
    if (::tcsetattr(fd.get(), TCSANOW, &wanted) != 0) return last_error("change the settings of the device");
    // tcsetattr(3) succeeds if the device accepted any of the changes.
    termios now;
    if (::tcgetattr(fd.get(), &now) != 0) return last_error("read the settings of the device");
    if (::cfgetospeed(&now) != s.speed || (now.c_cflag & CSIZE) != CS8) {
      ::tcsetattr(fd.get(), TCSANOW, &port.before_);
      return anyio::error(anyio::errc::not_supported, 0, "change the speed of the device");
    }
    auto stream = anyio::fd_stream::from_fd(fd.get());
    if (!stream) return stream.error();
    static_cast<void>(fd.release());
    port.stream = *std::move(stream);
    return port;
  }

  serial_port(serial_port&&) = default;
  serial_port& operator=(serial_port&&) = delete;
  ~serial_port() {
    if (stream) ::tcsetattr(stream.native_handle(), TCSANOW, &before_);
  }

  /// Waits until the device has sent what was written. tcdrain(3) would block the loop.
  anyio::task<> drain() {
    for (int left = 0; ::ioctl(stream.native_handle(), TIOCOUTQ, &left) == 0 && left > 0;)
      co_await anyio::sleep(std::chrono::milliseconds(10));
  }

 private:
  serial_port() = default;

  static anyio::error last_error(const char* operation) { return {anyio::errc::os_error, errno, operation}; }

  termios before_{};
};

static anyio::task<> print(anyio::byte_stream& from) {
  for (;;) {
    const std::string_view bytes = co_await from.receive_view();
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  }
}

// Standard input may be a regular file, which no poller watches, and is always ready.
static anyio::task<> send_input(serial_port& port) {
  std::array<char, 4096> bytes;
  for (;;) {
    co_await anyio::wait_readable(STDIN_FILENO);
    const ssize_t n = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;
    co_await port.stream.send(anyio::const_buffer(bytes.data(), static_cast<std::size_t>(n)));
  }
  co_await port.drain();
  std::fputs("serial_port: all input is sent\n", stderr);
}

static anyio::task<> talk(serial_port& port) {
  anyio::task_group group;
  group.start_soon(send_input(port));
  group.start_soon(print(port.stream));
  co_await group.join();
}

static anyio::task<> program(const settings& s) {
  auto interrupts = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  serial_port port = co_await serial_port::open(s);
  std::fprintf(stderr, "serial_port: connected to %s\n", printable(s.device).c_str());
  const auto ended = co_await as_result(anyio::when_any(talk(port), interrupts.receive()));
  // The device was unplugged: a read finds the end, or either direction an error.
  const bool lost =
      !ended && (ended.error() == anyio::errc::end_of_stream || ended.error() == std::errc::io_error ||
                 ended.error() == std::errc::no_such_device);
  if (lost) std::fputs("serial_port: the device is gone\n", stderr);
  if (!ended && !lost) co_await anyio::raise(ended.error());
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, help, 1);
  settings s;
  std::size_t i = 0;
  for (; i + 1 < words.size(); ++i) {
    if (words[i] == "--flow") {
      s.flow = true;
    } else if (words[i] == "--speed" && i + 2 < words.size()) {
      const auto speed = speed_of(words[++i]);
      if (!speed) show_help(help, false);
      s.speed = *speed;
    } else {
      show_help(help, false);
    }
  }
  if (words[i].starts_with("-")) show_help(help, false);
  s.device = words[i];
  return run_program("serial_port", program(s));
}
