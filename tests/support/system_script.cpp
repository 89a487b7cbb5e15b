// How scripts are run, and how results are recorded.
#include "system_script.hpp"

#include "emulator.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace support {

namespace {

using anyio::detail::message;
using call = system_op::call;

constexpr std::uint8_t named_ports = 3;
constexpr std::size_t kinds_of_sockets = 6;
constexpr std::uint16_t sizes[] = {1, 10, 100, 1000, 0, 2000, 3, 17};

struct option_name {
  const char* text;
  int level;
  int name;
};
constexpr option_name options[] = {
    {"SO_ERROR", SOL_SOCKET, SO_ERROR},           {"SO_TYPE", SOL_SOCKET, SO_TYPE},
    {"SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN}, {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR},
    {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE},   {"SO_BROADCAST", SOL_SOCKET, SO_BROADCAST},
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},    {"IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY},
    {"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT},   {"SO_LINGER", SOL_SOCKET, SO_LINGER},
};

constexpr const char* kind_names[kinds_of_sockets] = {"tcp4", "tcp6", "udp4",
                                                      "udp6", "unix", "unix datagram"};
constexpr const char* call_names[] = {
    "open", "pair",    "bind",          "listen",     "connect",       "accept",
    "send", "receive", "shutdown",      "close",      "send_to",       "receive_from",
    "pass", "take",    "set_option",    "get_option", "local_address", "remote_address",
    "peek", "unlink",  "connected_pair"};

std::string error_text(std::int64_t status) {
  const std::string_view name = anyio::detail::errno_name(static_cast<int>(-status));
  return name.empty() ? "errno " + std::to_string(-status) : std::string(name);
}

std::string status_text(std::int64_t status) { return status < 0 ? error_text(status) : "ok"; }

class runner {
 public:
  runner(anyio::backend& system, std::string folder, anyio::duration patience)
      : system_(system), folder_(std::move(folder)), patience_(patience) {
    // Those of an earlier script may still be in use: the machine may release passed descriptors late.
    static unsigned runs = 0;
    abstract_ = folder_ + std::to_string(++runs) + '/';
  }
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  ~runner() {
    for (std::size_t i = 0; i < slots_of_script; ++i) close(i);
    for (std::uint8_t i = 0; i < 3; ++i) anyio::detail::paths_of(system_).unlink(file_path(i).c_str());
  }

  std::string run(const system_op& op) {
    std::string text = step(op);
    settle(text);
    return text;
  }

 private:
  struct slot {
    int fd = -1;
    socket_kind kind{};
    std::uint32_t ready = 0;  // as last seen
    std::uint32_t told = 0;   // by events since
    int connects = 0;         // how many times it should be connected
    bool has_sent = false;
    [[nodiscard]] bool is_ip() const { return kind < socket_kind::unix_stream; }
    [[nodiscard]] bool is_v6() const { return kind == socket_kind::tcp6 || kind == socket_kind::udp6; }
    [[nodiscard]] bool is_stream() const {
      return kind == socket_kind::tcp4 || kind == socket_kind::tcp6 || kind == socket_kind::unix_stream;
    }
  };
  struct address {
    sockaddr_storage storage{};
    socklen_t size = 0;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  };

  std::string file_path(std::uint8_t i) const { return folder_ + '/' + static_cast<char>('a' + i % 3); }

  slot& at(std::uint8_t i) { return slots_[i % slots_of_script]; }

  std::string close(std::size_t i) {
    slot& s = slots_[i];
    if (s.fd < 0) return "nothing to close";
    system_.forget(s.fd);
    const int status = system_.close(std::exchange(s.fd, -1));
    return status_text(status);
  }

  /// Moves a new descriptor into a slot, and closes the old one.
  std::string put(std::uint8_t where, int fd, socket_kind kind) {
    if (fd < 0) return error_text(fd);
    const std::size_t i = where % slots_of_script;
    close(i);
    slots_[i] = slot{fd, kind};
    const int status = system_.watch(fd, i);
    return status < 0 ? "watch " + error_text(status) : "ok";
  }

  std::string open(std::uint8_t where, socket_kind kind) {
    constexpr int families[] = {AF_INET, AF_INET6, AF_INET, AF_INET6, AF_UNIX, AF_UNIX};
    const bool is_datagram =
        kind == socket_kind::udp4 || kind == socket_kind::udp6 || kind == socket_kind::unix_datagram;
    const int fd = system_.open_socket(families[static_cast<std::size_t>(kind)],
                                       is_datagram ? SOCK_DGRAM : SOCK_STREAM, 0);
    std::string text = put(where, fd, kind);
    // Without the first, ports of connections that have just ended are not free; without the second, bytes
    // wait for an acknowledgement of those before them.
    const int on = 1;
    if (fd >= 0 && (kind == socket_kind::tcp4 || kind == socket_kind::tcp6)) {
      system_.set_option(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      system_.set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return text;
  }

  std::uint16_t& port_of(const slot& s, std::uint8_t index) { return ports_[{s.is_stream(), index}]; }

  address make_address(const slot& s, place p, bool binds) {
    address out;
    if (s.is_ip()) {
      const std::uint8_t host = p.host % 3;
      const std::uint8_t index = p.port % (named_ports + 1);
      std::uint16_t port = index == named_ports ? std::uint16_t{0} : port_of(s, index);
      if (port == 0 && !binds) port = 1;  // without a listener
      anyio::ip_address a = host == 1 ? anyio::ip_address::any_v4() : anyio::ip_address::loopback_v4();
      if (host == 2 && !s.is_v6()) a = anyio::ip_address::v4(0x7f000002);
      if (s.is_v6()) {
        std::byte mapped[16] = {};
        mapped[10] = mapped[11] = std::byte{0xff};
        mapped[12] = std::byte{127};
        mapped[15] = std::byte{1};
        a = host == 1   ? anyio::ip_address::any_v6()
            : host == 0 ? anyio::ip_address::loopback_v6()
                        : anyio::ip_address::v6(mapped);
      }
      out.size = anyio::ip_endpoint{a, port}.to_sockaddr(out.storage);
      return out;
    }
    auto& un = reinterpret_cast<sockaddr_un&>(out.storage);
    un.sun_family = AF_UNIX;
    const bool is_abstract = p.host % 2 != 0;
    const std::string path =
        is_abstract ? '\0' + abstract_ + static_cast<char>('a' + p.port % 3) : file_path(p.port);
    std::memcpy(un.sun_path, path.data(), path.size());
    out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1));
    return out;
  }

  /// An address as text: which of the ports, or whose.
  std::string address_text(bool is_stream, const sockaddr_storage& storage, socklen_t size) {
    const auto* raw = reinterpret_cast<const sockaddr*>(&storage);
    if (size < sizeof(sa_family_t)) return "nothing";
    if (storage.ss_family == AF_UNIX) {
      std::string path = anyio::detail::unix_path(raw, size);
      if (path.empty()) return "unnamed";
      const bool is_abstract = path.front() == '\0';
      const std::size_t known = is_abstract ? 1 + abstract_.size() : folder_.size() + 1;
      return (is_abstract ? "abstract " : "path ") + path.substr(std::min(known, path.size())) + ", " +
             std::to_string(size - known) + " more";
    }
    const anyio::result<anyio::ip_endpoint> e = anyio::ip_endpoint::from_sockaddr(raw, size);
    if (!e) return "not an address";
    std::string port = "a chosen port";
    if (e->port == 0) port = "port 0";
    if (e->port == 1) port = "port of nobody";
    for (std::uint8_t i = 0; i < named_ports; ++i)
      if (const auto found = ports_.find({is_stream, i}); found != ports_.end() && found->second == e->port)
        port = "port " + std::string(1, static_cast<char>('A' + i));
    const bool is_v6 = storage.ss_family == AF_INET6;
    return (is_v6 ? "v6 " : "v4 ") + e->address.to_string() + " " + port;
  }

  std::string own_address(const slot& s, bool remote) {
    address a;
    a.size = sizeof a.storage;
    const int status = remote ? system_.remote_address(s.fd, a.get(), &a.size)
                              : system_.local_address(s.fd, a.get(), &a.size);
    return status < 0 ? error_text(status) : address_text(s.is_stream(), a.storage, a.size);
  }

  std::string bind(slot& s, place p) {
    address a = make_address(s, p, true);
    const int status = system_.bind(s.fd, a.get(), a.size);
    if (status >= 0 && s.is_ip() && p.port % (named_ports + 1) != named_ports &&
        port_of(s, p.port % 4) == 0) {
      address chosen;
      chosen.size = sizeof chosen.storage;
      if (system_.local_address(s.fd, chosen.get(), &chosen.size) >= 0)
        port_of(s, p.port % 4) = anyio::ip_endpoint::from_sockaddr(chosen.get(), chosen.size).value().port;
    }
    return status_text(status);
  }

  std::string connect(slot& s, place p) {
    address a = make_address(s, p, false);
    const int status = system_.connect(s.fd, a.get(), a.size);
    if (status == -EINPROGRESS) return "ok";  // the outcome shows later
    return status_text(status);
  }

  std::string accept(slot& s, std::uint8_t into) {
    address a;
    a.size = sizeof a.storage;
    const socket_kind kind = s.kind;
    const int fd = system_.accept(s.fd, a.get(), &a.size);
    if (fd < 0) return error_text(fd);
    std::string text = "from " + address_text(true, a.storage, a.size);
    text += ", " + put(into, fd, kind);
    at(into).connects = 2;
    return text;
  }

  std::string payload(std::size_t size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>('!' + next_byte_++ % 89);
    return bytes;
  }

  static std::string bytes_text(std::string_view bytes) {
    std::uint32_t sum = 2166136261u;
    for (const char c : bytes) sum = (sum ^ static_cast<unsigned char>(c)) * 16777619u;
    return std::to_string(bytes.size()) + " bytes " + std::to_string(sum);
  }

  /// In two parts if there is enough data.
  std::string send(slot& s, std::size_t size, address* to, std::span<const int> fds) {
    const std::string bytes = payload(size);
    ::iovec parts[2] = {{const_cast<char*>(bytes.data()), size / 3},
                        {const_cast<char*>(bytes.data()) + size / 3, size - size / 3}};
    message m;
    m.parts = parts;
    if (to != nullptr) {
      m.address = to->get();
      m.address_size = to->size;
    }
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(3 * sizeof(int))] = {};
    if (!fds.empty()) {
      m.control = control;
      m.control_size = CMSG_SPACE(fds.size_bytes());
      msghdr header{};
      header.msg_control = control;
      header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
      cmsghdr* const c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = static_cast<decltype(c->cmsg_len)>(CMSG_LEN(fds.size_bytes()));
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    const ssize_t n = to == nullptr && fds.empty() ? system_.send(s.fd, bytes.data(), bytes.size())
                                                   : system_.send_message(s.fd, m);
    s.has_sent = true;
    // Which of the two comes first has changed in Linux 6.14.
    const bool over_or_unconnected = s.kind == socket_kind::unix_datagram && (n == -ENOTCONN || n == -EPIPE);
    if (over_or_unconnected && to == nullptr) return "ENOTCONN or EPIPE";
    return n < 0 ? error_text(n) : std::to_string(n) + " bytes";
  }

  std::string receive(slot& s, std::size_t size, bool wants_address, bool peeks) {
    std::string bytes(size, '\0');
    ::iovec parts[2] = {{bytes.data(), size / 4}, {bytes.data() + size / 4, size - size / 4}};
    message m;
    m.parts = parts;
    m.peek = peeks;
    address from;
    if (wants_address) {
      m.address = from.get();
      m.address_size = sizeof from.storage;
    }
    const ssize_t n = wants_address || peeks ? system_.receive_message(s.fd, m)
                                             : system_.receive(s.fd, bytes.data(), bytes.size());
    if (n < 0) return error_text(n);
    std::string text = bytes_text(std::string_view(bytes).substr(0, static_cast<std::size_t>(n)));
    if ((m.flags & MSG_TRUNC) != 0) text += ", cut";
    if (!peeks && (m.flags & MSG_CTRUNC) != 0) text += ", control cut";
    if (wants_address && !s.is_stream())
      text += ", from " + address_text(false, from.storage, m.address_size);
    return text;
  }

  /// Takes bytes and descriptors. The first descriptor is moved to a slot, the others are closed.
  std::string take(slot& s, std::uint8_t into, std::size_t size, std::size_t room) {
    std::string bytes(size, '\0');
    const ::iovec part{bytes.data(), size};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(4 * sizeof(int))] = {};
    message m;
    m.parts = anyio::detail::slice<const ::iovec>(&part, 1);
    m.control = control;
    m.control_size = room == 0 ? 0 : CMSG_SPACE(room * sizeof(int));
    const ssize_t n = system_.receive_message(s.fd, m);
    if (n < 0) return error_text(n);
    std::vector<int> fds;
    msghdr header{};
    header.msg_control = control;
    header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr && m.control_size != 0;
         c = anyio::detail::next_control(header, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        fds.push_back(fd);
      }
    }
    std::string text = bytes_text(std::string_view(bytes).substr(0, static_cast<std::size_t>(n)));
    text += ", " + std::to_string(fds.size()) + " descriptors";
    if ((m.flags & MSG_CTRUNC) != 0) text += ", control cut";
    for (std::size_t i = 1; i < fds.size(); ++i) system_.close(fds[i]);
    if (fds.empty()) return text;
    text += ", " + put(into, fds.front(), kind_of(fds.front()));
    at(into).connects = 2;  // allowed
    return text;
  }

  socket_kind kind_of(int fd) {
    address a;
    a.size = sizeof a.storage;
    int type = 0;
    socklen_t size = sizeof type;
    if (system_.local_address(fd, a.get(), &a.size) < 0) return socket_kind::unix_stream;
    if (system_.get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return socket_kind::unix_stream;
    const bool is_stream = type == SOCK_STREAM;
    if (a.storage.ss_family == AF_UNIX)
      return is_stream ? socket_kind::unix_stream : socket_kind::unix_datagram;
    if (a.storage.ss_family == AF_INET) return is_stream ? socket_kind::tcp4 : socket_kind::udp4;
    return is_stream ? socket_kind::tcp6 : socket_kind::udp6;
  }

  std::string set_option(slot& s, const option_name& o, int value) {
    if (o.name == SO_LINGER && o.level == SOL_SOCKET) {
      const linger l{value, 0};
      return status_text(system_.set_option(s.fd, o.level, o.name, &l, sizeof l));
    }
    return status_text(system_.set_option(s.fd, o.level, o.name, &value, sizeof value));
  }

  std::string get_option(slot& s, const option_name& o) {
    int value[2] = {};
    socklen_t size = sizeof value[0];
    const int status = system_.get_option(s.fd, o.level, o.name, value, &size);
    if (status < 0) return error_text(status);
    return o.name == SO_ERROR && value[0] != 0 ? error_text(-value[0]) : std::to_string(value[0]);
  }

  /// Both ends of a connection through a listener, as a program creates one.
  std::string connected_pair(std::uint8_t first, std::uint8_t second, socket_kind kind) {
    const std::uint8_t a = static_cast<std::uint8_t>(first % slots_of_script);
    std::uint8_t b = static_cast<std::uint8_t>(second % slots_of_script);
    if (b == a) b = static_cast<std::uint8_t>((a + 1) % slots_of_script);
    constexpr place anywhere{0, named_ports};
    std::string text = open(a, kind);
    slot listener = std::exchange(at(a), slot{});
    if (listener.fd < 0) return text;
    system_.forget(listener.fd);
    address where;
    if (listener.is_ip()) {
      text += " " + bind(listener, anywhere);
    } else {
      where = make_address(listener, {1, 2}, true);
      std::memcpy(reinterpret_cast<sockaddr_un&>(where.storage).sun_path + where.size -
                      offsetof(sockaddr_un, sun_path),
                  "pair", 4);
      where.size += 4;
      text += " " + status_text(system_.bind(listener.fd, where.get(), where.size));
    }
    text += " " + status_text(system_.listen(listener.fd, 1));
    if (listener.is_ip()) {
      where.size = sizeof where.storage;
      system_.local_address(listener.fd, where.get(), &where.size);
    }
    text += " " + open(a, kind);
    at(a).connects = 2;
    const int status = system_.connect(at(a).fd, where.get(), where.size);
    text += status == -EINPROGRESS ? " ok" : " " + status_text(status);
    wait_a_little();
    text += " " + accept(listener, b);
    system_.close(listener.fd);
    return text;
  }

  /// The known differences; test_sim_system.cpp explains them.
  static bool is_beyond_comparison(const slot& s, const system_op& op) {
    const bool is_tcp = s.is_ip() && s.is_stream();
    const option_name& o = options[op.b % std::size(options)];
    switch (op.what) {
      case call::bind:
        return (is_tcp && s.connects > 0) || (s.kind == socket_kind::unix_datagram && s.has_sent);
      case call::listen: return is_tcp && s.connects > 0;
      case call::connect:
        return (is_tcp && s.connects > 1) || (s.kind == socket_kind::udp6 && s.connects > 0);
      case call::set_option:
        return o.level == IPPROTO_TCP || (o.name == SO_REUSEPORT && !s.is_ip()) ||
               (o.level == IPPROTO_IPV6 && is_tcp && s.connects > 0);
      default: return false;
    }
  }

  std::string step(const system_op& op) {
    const auto b_kind = static_cast<socket_kind>(op.b % kinds_of_sockets);
    switch (op.what) {
      case call::open: return open(op.a, b_kind);
      case call::pair: {
        int fds[2] = {-1, -1};
        const bool is_stream = op.c % 2 == 0;
        const int status = system_.open_pair(AF_UNIX, is_stream ? SOCK_STREAM : SOCK_DGRAM, fds);
        if (status < 0) return error_text(status);
        const std::uint8_t b =
            op.a % slots_of_script == op.b % slots_of_script ? static_cast<std::uint8_t>(op.b + 1) : op.b;
        const socket_kind kind = is_stream ? socket_kind::unix_stream : socket_kind::unix_datagram;
        const std::string first = put(op.a, fds[0], kind);
        return first + " " + put(b, fds[1], kind);
      }
      case call::connected_pair: {
        constexpr socket_kind streams[] = {socket_kind::tcp4, socket_kind::tcp6, socket_kind::unix_stream};
        return connected_pair(op.a, op.b, streams[op.c % 3]);
      }
      case call::unlink: {
        return status_text(anyio::detail::paths_of(system_).unlink(file_path(op.c).c_str()));
      }
      default: break;
    }
    slot& s = at(op.a);
    if (s.fd < 0) return "closed";
    if (is_beyond_comparison(s, op)) return "not compared";
    const place p{op.b, op.c};
    const std::size_t size = op.size;
    switch (op.what) {
      case call::bind: return bind(s, p);
      case call::listen: return status_text(system_.listen(s.fd, op.c % 4));
      case call::connect: ++s.connects; return connect(s, p);
      case call::accept: return accept(s, op.b);
      case call::send: return send(s, size, nullptr, {});
      case call::send_to: {
        address to = make_address(s, p, false);
        return send(s, size, &to, {});
      }
      case call::receive: return receive(s, size, false, false);
      case call::receive_from: return receive(s, size, true, false);
      case call::peek: return receive(s, size, false, true);
      case call::shutdown: s.connects = 2; return status_text(system_.shutdown(s.fd, op.c % 3));
      case call::close: return close(op.a % slots_of_script);
      case call::pass: {
        const slot& passed = at(op.b);
        if (passed.fd < 0 || s.is_ip()) return "nothing to pass";
        // UNIX sockets that are passed through one another may keep themselves open, which only the machine
        // detects, and late. The author of a script knows that they do not.
        if (!passed.is_ip() && op.c < system_op::pass_anything) return "not compared";
        const int fds[] = {passed.fd, passed.fd, passed.fd};
        return send(s, size, nullptr, std::span(fds).first(1 + op.c % system_op::pass_anything % 3));
      }
      case call::take: {
        const std::size_t room = op.c % 4;
        if (room != 0 && emulator_has(emulator_fault::cut_descriptors)) return take(s, op.b, size, 3);
        return take(s, op.b, size, room);
      }
      case call::set_option: return set_option(s, options[op.b % std::size(options)], op.c % 2);
      case call::get_option: return get_option(s, options[op.b % std::size(options)]);
      case call::local_address: return own_address(s, false);
      case call::remote_address: return own_address(s, true);
      default: return "not a call";
    }
  }

  void take_events(anyio::duration at_most) {
    anyio::detail::poll_event events[64];
    for (;;) {
      const int n = system_.wait(events, at_most);
      for (int i = 0; i < n; ++i)
        if (events[i].token < slots_of_script) slots_[events[i].token].told |= events[i].ready;
      if (n <= 0) return;
    }
  }

  void wait_a_little() { take_events(patience_); }

  /// Runs everything that can happen, and records changes in readiness.
  void settle(std::string& text) {
    constexpr std::uint32_t all =
        anyio::detail::ready_read | anyio::detail::ready_write | anyio::detail::ready_end;
    wait_a_little();
    for (std::size_t i = 0; i < slots_of_script; ++i) {
      slot& s = slots_[i];
      if (s.fd < 0) continue;
      const int bits = system_.poll_now(s.fd, all);
      if (bits < 0) {
        text += "; poll " + error_text(bits);
        continue;
      }
      const std::uint32_t now = static_cast<std::uint32_t>(bits) & all;
      if (now != s.ready) {
        text += "; " + std::to_string(i) + ":";
        if ((now & anyio::detail::ready_read) != 0) text += " read";
        if ((now & anyio::detail::ready_write) != 0) text += " write";
        if ((now & anyio::detail::ready_end) != 0) text += " end";
        if (now == 0) text += " nothing";
      }
      const std::uint32_t came = now & ~s.ready & ~anyio::detail::ready_end;
      if ((came & ~s.told) != 0) text += "; " + std::to_string(i) + " WAS NOT TOLD OF IT";
      s.ready = now;
      s.told = 0;
    }
  }

  anyio::backend& system_;
  std::string folder_;
  std::string abstract_;
  anyio::duration patience_;
  std::array<slot, slots_of_script> slots_;
  std::map<std::pair<bool, std::uint8_t>, std::uint16_t> ports_;  // by whether of streams, and index
  std::size_t next_byte_ = 0;
};

}  // namespace

std::vector<system_op> parse_script(std::span<const std::uint8_t> bytes) {
  constexpr std::size_t longest = 80;
  std::vector<system_op> script;
  // Some calls are more useful than others: the probability is the number of entries here.
  constexpr call likely[] = {
      call::open,    call::open,       call::open,           call::pair,          call::bind,
      call::bind,    call::listen,     call::connect,        call::connect,       call::accept,
      call::accept,  call::send,       call::send,           call::send,          call::receive,
      call::receive, call::receive,    call::shutdown,       call::close,         call::close,
      call::send_to, call::send_to,    call::receive_from,   call::receive_from,  call::pass,
      call::take,    call::set_option, call::get_option,     call::local_address, call::remote_address,
      call::peek,    call::unlink,     call::connected_pair, call::connected_pair};
  while (bytes.size() >= 4 && script.size() < longest) {
    system_op op;
    op.what = likely[bytes[0] % std::size(likely)];
    op.a = static_cast<std::uint8_t>(bytes[1] % slots_of_script);
    op.size = sizes[bytes[1] / slots_of_script % std::size(sizes)];
    op.b = bytes[2];
    op.c = op.what == call::pass ? bytes[3] % system_op::pass_anything : bytes[3];
    script.push_back(op);
    bytes = bytes.subspan(4);
  }
  return script;
}

std::string to_string(const system_op& op) {
  std::string text = call_names[static_cast<std::size_t>(op.what)];
  text += " slot " + std::to_string(op.a % slots_of_script);
  text += ", b " + std::to_string(op.b) + " (slot " + std::to_string(op.b % slots_of_script) + ", " +
          kind_names[op.b % kinds_of_sockets] + ", " + options[op.b % std::size(options)].text + ")";
  text += ", c " + std::to_string(op.c % 12) + ", size " + std::to_string(op.size);
  return text;
}

std::vector<std::string> run_script(anyio::backend& system, std::span<const system_op> script,
                                    const std::string& folder, anyio::duration patience) {
  std::vector<std::string> results;
  runner r(system, folder, patience);
  for (const system_op& op : script) results.push_back(r.run(op));
  return results;
}

std::string compare_with_system(std::span<const system_op> script, const std::string& folder,
                                anyio::duration patience) {
  const auto network = std::make_shared<anyio::detail::sim_network>(anyio::sim::options{});
  std::vector<std::string> simulated;
  {
    const std::unique_ptr<anyio::backend> backend = anyio::detail::sim_network::make_backend(network);
    simulated = run_script(*backend, script, "/simulated");
  }
  std::vector<std::string> real;
  // Some events of the machine arrive late: they are seen with patience.
  for (const anyio::duration wait : {anyio::duration::zero(), patience}) {
    const std::unique_ptr<anyio::backend> system = anyio::system_backend();
    real = run_script(*system, script, folder, wait);
    if (real == simulated || patience == anyio::duration::zero()) break;
  }
  std::string report;
  if (network->open_descriptors() != 0) report += "the simulated network leaks:\n" + network->dump();
  if (real == simulated) return report;
  for (std::size_t i = 0; i < script.size(); ++i) {
    report += to_string(script[i]) + "\n    " + (real[i] == simulated[i] ? "both" : "simulated") + ": " +
              simulated[i] + "\n";
    if (real[i] == simulated[i]) continue;
    report += "    system:    " + real[i] + "\n";
    break;
  }
  return report;
}

}  // namespace support
