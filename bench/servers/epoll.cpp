// The measure of the others: epoll(7) by hand, the way one would write it for production. In two forms, and
// the better one of a run counts:
//
// edge   Registered once, edge-triggered both ways. A read that did not fill the buffer has emptied the
//        socket, so the next one waits for an edge; not after EPOLLRDHUP and the like, since no other edge
//        will come. Datagrams are read until there are none.
// level  Level-triggered, one receive for each event, EPOLLOUT only while something is unsent.
//
// What cannot be sent at once is kept, and nothing is read until it is gone.

#include "epoll.hpp"

#include <netinet/udp.h>

namespace {

using bench::fail;

thread_local char buffer[bench::stream_buffer];
bool level = false;

struct connection {
  int fd;
  bool read_to_end = false;
  bool watches_output = false;
  std::string unsent;
  std::uint64_t count = 0;
};

/// False when the connection is to be closed. What does not go at once is left in `unsent`.
bool send_all(connection& c, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) return false;
    if (n < 0) {
      c.unsent = std::string(bytes);
      return true;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  c.unsent.clear();
  return true;
}

/// Echoes, or counts, until the socket is empty or full, or once. False when the connection is to be closed.
template <bool Echo>
bool serve(connection& c) {
  if (!c.unsent.empty() && !send_all(c, std::string(c.unsent))) return false;
  while (c.unsent.empty()) {
    const ssize_t n = ::recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    const auto size = static_cast<std::size_t>(n);
    if (!Echo)
      c.count += size;
    else if (!send_all(c, {buffer, size}))
      return false;
    if (level || (size < sizeof buffer && !c.read_to_end)) return true;
  }
  return true;
}

void accept_all(int poller, int listener, bool tcp) {
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    if (tcp) bench::set_no_delay(fd);
    auto* c = new connection{fd, false, false, {}};
    if (bench::watch(poller, EPOLL_CTL_ADD, fd, level ? EPOLLIN : bench::edges, c)) continue;
    ::close(fd);
    delete c;
  }
}

template <bool Echo>
void run_streams(int listener, bool tcp) {
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  if (!bench::watch(poller, EPOLL_CTL_ADD, listener, EPOLLIN, nullptr)) fail("epoll_ctl");
  std::vector<epoll_event> events(512);
  for (;;) {
    const int count = ::epoll_wait(poller, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      auto* c = static_cast<connection*>(event.data.ptr);
      if (c == nullptr) {
        accept_all(poller, listener, tcp);
        continue;
      }
      if (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) c->read_to_end = true;
      if (!serve<Echo>(*c)) {
        ::close(c->fd);
        delete c;
      } else if (level && c->watches_output == c->unsent.empty()) {
        c->watches_output = !c->watches_output;
        bench::watch(poller, EPOLL_CTL_MOD, c->fd, c->watches_output ? EPOLLOUT : EPOLLIN, c);
      }
    }
  }
}

// ---- datagrams ------------------------------------------------------------------------------------

template <class OnReadable>
void run_datagrams(int fd, OnReadable on_readable) {
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  if (!bench::watch(poller, EPOLL_CTL_ADD, fd, EPOLLIN, nullptr)) fail("epoll_ctl");
  epoll_event event;
  for (;;)
    if (::epoll_wait(poller, &event, 1, -1) > 0) on_readable();
}

void wait_writable(int fd) {
  pollfd waiting{fd, POLLOUT, 0};
  ::poll(&waiting, 1, -1);
}

struct sink {
  int fd;
  std::uint64_t count = 0;

  void take(std::size_t size, const void* sender, socklen_t sender_size) {
    if (size > 1) {
      ++count;
      return;
    }
    const std::string answer = std::to_string(count);
    ::sendto(fd, answer.data(), answer.size(), 0, static_cast<const sockaddr*>(sender), sender_size);
  }
};

void receive_each(int fd, bool echo) {
  sink s{fd};
  run_datagrams(fd, [&] {
    do {
      sockaddr_storage sender;
      socklen_t size = sizeof sender;
      const ssize_t n =
          ::recvfrom(fd, buffer, bench::datagram_buffer, 0, reinterpret_cast<sockaddr*>(&sender), &size);
      if (n < 0) return;
      if (!echo) {
        s.take(static_cast<std::size_t>(n), &sender, size);
        continue;
      }
      while (::sendto(fd, buffer, static_cast<std::size_t>(n), 0, reinterpret_cast<sockaddr*>(&sender),
                      size) < 0 &&
             errno == EAGAIN)
        wait_writable(fd);
    } while (!level);
  });
}

void receive_many(int fd, bool echo) {
  static char buffers[bench::batch_count][bench::datagram_buffer];
  static sockaddr_in senders[bench::batch_count];
  static iovec pieces[bench::batch_count];
  static mmsghdr messages[bench::batch_count];
  for (std::size_t i = 0; i < bench::batch_count; ++i) {
    pieces[i] = {buffers[i], sizeof buffers[i]};
    messages[i].msg_hdr = {};
    messages[i].msg_hdr.msg_name = &senders[i];
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  sink s{fd};
  run_datagrams(fd, [&] {
    for (;;) {
      for (std::size_t i = 0; i < bench::batch_count; ++i) {
        pieces[i].iov_len = sizeof buffers[i];
        messages[i].msg_hdr.msg_namelen = sizeof senders[i];
      }
      const int n = ::recvmmsg(fd, messages, bench::batch_count, MSG_DONTWAIT, nullptr);
      if (n <= 0) return;
      for (int i = 0; i < n; ++i) {
        mmsghdr& m = messages[i];
        if (echo)
          pieces[i].iov_len = m.msg_len;
        else
          s.take(m.msg_len, m.msg_hdr.msg_name, m.msg_hdr.msg_namelen);
      }
      for (int sent = 0; echo && sent < n;) {
        const int k = ::sendmmsg(fd, messages + sent, static_cast<unsigned>(n - sent), 0);
        if (k > 0)
          sent += k;
        else
          wait_writable(fd);
      }
      if (n < static_cast<int>(bench::batch_count)) return;
    }
  });
}

void receive_merged(int fd) {
  const int on = 1;
  if (::setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0) fail("UDP_GRO");
  sink s{fd};
  run_datagrams(fd, [&] {
    for (;;) {
      sockaddr_in sender;
      iovec piece{buffer, sizeof buffer};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
      msghdr m{};
      m.msg_name = &sender;
      m.msg_namelen = sizeof sender;
      m.msg_iov = &piece;
      m.msg_iovlen = 1;
      m.msg_control = control;
      m.msg_controllen = sizeof control;
      const ssize_t n = ::recvmsg(fd, &m, 0);
      if (n < 0) return;
      auto rest = static_cast<std::size_t>(n);
      std::size_t each = rest;
      for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
          int size;
          std::memcpy(&size, CMSG_DATA(c), sizeof size);
          each = static_cast<std::size_t>(size);
        }
      for (; rest > each; rest -= each) s.take(each, &sender, sizeof sender);
      s.take(rest, &sender, m.msg_namelen);
    }
  });
}

int serve_datagrams(const bench::arguments& a) {
  const bool udp = a.kind == "udp";
  int fd;
  if (udp) {
    fd = bench::bound_socket(SOCK_DGRAM, 0, false);
    bench::announce(bench::port_of(fd));
  } else {
    fd = bench::bound_socket(SOCK_DGRAM, a.path);
    bench::announce(a.path);
  }
  if (a.mode == "echo") receive_each(fd, true);
  if (udp && a.mode == "echo-batch") receive_many(fd, true);
  if (udp && a.mode == "sink") receive_each(fd, false);
  if (udp && a.mode == "sink-batch") receive_many(fd, false);
  if (udp && a.mode == "sink-gro") receive_merged(fd);
  return bench::unsupported();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  level = a.form == "level";
  if (a.kind == "udp" || a.kind == "unixgram") return serve_datagrams(a);
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  const auto run = a.mode == "echo" ? run_streams<true> : run_streams<false>;
  if (a.kind == "unix") {
    const int fd = bench::bound_socket(SOCK_STREAM, a.path);
    bench::announce(a.path);
    run(fd, false);
  }
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    const int fd = bench::bound_socket(SOCK_STREAM, port, a.threads > 1);
    listening(bench::port_of(fd));
    run(fd, true);
  });
}
