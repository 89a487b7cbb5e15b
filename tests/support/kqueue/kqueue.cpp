// A kqueue is made of three epolls: one for each filter, so that an event of one does not affect the others,
// and both inside another, whose number is the kqueue's. Differences of Linux are corrected here.
#include <sys/event.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sockios.h>

namespace {

constexpr int filters = 3;
constexpr int largest = 1 << 16;  // descriptors above are rejected
constexpr int most_queues = 1024;

struct note {
  bool used;
  unsigned short flags;
  void* udata;
};

struct queue {
  int number;
  int parts[filters];
  int next;     // which filter comes first at the next call
  int highest;  // no descriptor above it was ever added
  note notes[filters][largest];
};

// Nothing here allocates by operator new, since tests count allocations.
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
queue* queues[most_queues];
std::atomic<unsigned> notes_of[largest];   // so that closing other descriptors is cheap
std::atomic<bool> has_shut_down[largest];  // this end has shut down sending

struct locked {
  locked() { pthread_mutex_lock(&mutex); }
  ~locked() { pthread_mutex_unlock(&mutex); }
  locked(const locked&) = delete;
};

int real_close(int fd) { return static_cast<int>(syscall(SYS_close, fd)); }

int index_of(int filter) {
  switch (filter) {
    case EVFILT_READ: return 0;
    case EVFILT_WRITE: return 1;
    case EVFILT_EXCEPT: return 2;
    default: return -1;
  }
}
constexpr short filter_of[filters] = {EVFILT_READ, EVFILT_WRITE, EVFILT_EXCEPT};
constexpr std::uint32_t mask_of[filters] = {EPOLLIN | EPOLLRDHUP, EPOLLOUT, EPOLLPRI};

queue* find(int number) {
  for (queue* q : queues)
    if (q != nullptr && q->number == number) return q;
  return nullptr;
}

void drop(queue& q, int part, int fd) {
  note& n = q.notes[part][fd];
  if (!n.used) return;
  epoll_event unused{};
  epoll_ctl(q.parts[part], EPOLL_CTL_DEL, fd, &unused);
  n.used = false;
  --notes_of[fd];
}

void end(queue*& q) {
  for (int part = 0; part < filters; ++part) {
    for (int fd = 0; fd <= q->highest; ++fd)
      if (q->notes[part][fd].used) --notes_of[fd];
    real_close(q->parts[part]);
  }
  free(q);
  q = nullptr;
}

void lock_for_fork() { pthread_mutex_lock(&mutex); }
void unlock_after_fork() { pthread_mutex_unlock(&mutex); }
void leave_behind() {  // in the child
  for (queue*& q : queues) {
    if (q == nullptr) continue;
    real_close(q->number);
    end(q);
  }
  pthread_mutex_unlock(&mutex);
}

/// 0 or an errno.
int add(queue& q, int part, int fd, const struct kevent& change) {
  struct stat status;
  if (fstat(fd, &status) != 0) return EBADF;
  if (part == 2 && (!S_ISSOCK(status.st_mode) || change.fflags != NOTE_OOB)) return EINVAL;
  if (part == 1 && S_ISFIFO(status.st_mode)) {
    pollfd end{fd, POLLOUT, 0};
    if (poll(&end, 1, 0) == 1 && (end.revents & POLLERR) != 0) return EPIPE;
  }
  note& n = q.notes[part][fd];
  epoll_event event{};
  event.events = mask_of[part] | ((change.flags & EV_CLEAR) != 0 ? std::uint32_t{EPOLLET} : 0u);
  event.data.fd = fd;
  if (epoll_ctl(q.parts[part], n.used ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
    return errno == EPERM ? EINVAL : errno;
  if (!n.used) ++notes_of[fd];
  q.highest = std::max(q.highest, fd);
  n = {true, static_cast<unsigned short>(change.flags & (EV_CLEAR | EV_ONESHOT)), change.udata};
  return 0;
}

/// 0 or an errno.
int apply(queue& q, const struct kevent& change) {
  constexpr int known = EV_ADD | EV_DELETE | EV_ONESHOT | EV_CLEAR | EV_RECEIPT;
  const int part = index_of(change.filter);
  const int what = change.flags & (EV_ADD | EV_DELETE);
  if (part < 0 || (change.flags & ~known) != 0 || (what != EV_ADD && what != EV_DELETE)) return EINVAL;
  if (change.ident >= largest) return EBADF;
  const int fd = static_cast<int>(change.ident);
  if (what == EV_ADD) return add(q, part, fd, change);
  if (fcntl(fd, F_GETFD) < 0) return EBADF;
  if (!q.notes[part][fd].used) return ENOENT;
  drop(q, part, fd);
  return 0;
}

/// What the filter reports for a report of epoll; false for nothing.
bool describe(const queue& q, int part, int fd, std::uint32_t seen, struct kevent& out) {
  const note& n = q.notes[part][fd];
  out = {};
  out.ident = static_cast<uintptr_t>(fd);
  out.filter = filter_of[part];
  out.flags = n.flags;
  out.udata = n.udata;
  struct stat status;
  const bool is_socket = fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
  bool at_end = (seen & EPOLLHUP) != 0;
  int count = 0;
  switch (out.filter) {
    case EVFILT_READ:
      at_end = at_end || (seen & EPOLLRDHUP) != 0;
      // A listener has no bytes to count. Nor has a pending error without data, as of datagram sockets.
      if (ioctl(fd, FIONREAD, &count) == 0) out.data = count;
      if (out.data == 0 && !at_end) out.data = 1;
      break;
    case EVFILT_WRITE: {
      at_end = at_end || has_shut_down[fd] || (!is_socket && (seen & EPOLLERR) != 0);
      int room = 0;
      socklen_t size = sizeof room;
      if (!is_socket)
        room = 4096;
      else if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &size) == 0 && ioctl(fd, SIOCOUTQ, &count) == 0)
        room = std::max(room - count, 1);
      out.data = room;
      break;
    }
    default:
      if ((seen & EPOLLPRI) == 0) return false;
      out.fflags = NOTE_OOB;
      return true;
  }
  if (at_end) out.flags |= EV_EOF;
  if (at_end && is_socket && (seen & EPOLLERR) != 0) out.fflags = ECONNRESET;
  return true;
}

int collect(queue& q, struct kevent* events, int room) {
  int count = 0;
  for (int i = 0; i < filters; ++i) {
    const int part = (q.next + i) % filters;
    epoll_event seen[64];  // no second call: without EV_CLEAR a condition would be reported again and again
    const int n = count == room ? 0 : epoll_wait(q.parts[part], seen, std::min(room - count, 64), 0);
    for (int j = 0; j < n; ++j) {
      const int fd = seen[j].data.fd;
      if (!q.notes[part][fd].used || !describe(q, part, fd, seen[j].events, events[count])) continue;
      ++count;
      if ((q.notes[part][fd].flags & EV_ONESHOT) != 0) drop(q, part, fd);
    }
  }
  q.next = (q.next + 1) % filters;
  return count;
}

timespec now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time;
}
std::int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * std::int64_t{1000000000} + time.tv_nsec;
}

}  // namespace

extern "C" int kqueue() {
  static const int prepared = pthread_atfork(lock_for_fork, unlock_after_fork, leave_behind);
  const locked lock;
  queue** place = std::find(std::begin(queues), std::end(queues), nullptr);
  auto* q =
      prepared == 0 && place != std::end(queues) ? static_cast<queue*>(calloc(1, sizeof(queue))) : nullptr;
  if (q == nullptr) {
    errno = ENOMEM;
    return -1;
  }
  q->number = epoll_create1(0);
  bool made = q->number >= 0;
  for (int& part : q->parts) {
    part = made ? epoll_create1(EPOLL_CLOEXEC) : -1;
    epoll_event event{};
    event.events = EPOLLIN;
    made = made && part >= 0 && epoll_ctl(q->number, EPOLL_CTL_ADD, part, &event) == 0;
  }
  if (made) {
    *place = q;
    return q->number;
  }
  const int reason = errno;
  for (const int fd : {q->number, q->parts[0], q->parts[1], q->parts[2]})
    if (fd >= 0) real_close(fd);
  free(q);
  errno = reason;
  return -1;
}

extern "C" int kevent(int number, const struct kevent* changes, int change_count, struct kevent* events,
                      int event_count, const timespec* timeout) {
  const std::int64_t start = nanoseconds(now());
  for (bool first = true;; first = false) {
    {
      const locked lock;
      queue* q = find(number);
      if (q == nullptr) {
        errno = EBADF;
        return -1;
      }
      int told = 0;
      for (int i = 0; first && i < change_count; ++i) {
        const struct kevent change = changes[i];  // events may be the same array
        const int error_number = apply(*q, change);
        if (error_number == 0 && (change.flags & EV_RECEIPT) == 0) continue;
        if (told == event_count) {
          if (error_number == 0) continue;
          errno = error_number;
          return -1;
        }
        events[told] = change;
        events[told].flags = EV_ERROR;
        events[told].data = error_number;
        ++told;
      }
      if (told > 0) return told;
      if (event_count == 0) return 0;
      const int count = collect(*q, events, event_count);
      if (count > 0) return count;
    }
    timespec rest{};
    if (timeout != nullptr) {
      const std::int64_t left = nanoseconds(*timeout) - (nanoseconds(now()) - start);
      if (left <= 0) return 0;
      rest = {left / 1000000000, left % 1000000000};
    }
    pollfd entry{number, POLLIN, 0};
    if (ppoll(&entry, 1, timeout != nullptr ? &rest : nullptr, nullptr) < 0) return -1;
  }
}

extern "C" int kqueue_for_tests_watched(int number) {
  const locked lock;
  const queue* q = find(number);
  int count = 0;
  for (int fd = 0; q != nullptr && fd <= q->highest; ++fd)
    count += q->notes[0][fd].used || q->notes[1][fd].used || q->notes[2][fd].used;
  return count;
}

// Replaces the C library's function, for the program's own calls.

extern "C" int close(int fd) {
  if (fd >= 0 && fd < largest) {
    const locked lock;
    for (queue*& q : queues) {
      if (q == nullptr) continue;
      if (q->number == fd) {
        end(q);
        continue;
      }
      if (notes_of[fd] == 0) continue;
      for (int part = 0; part < filters; ++part) drop(*q, part, fd);
    }
    has_shut_down[fd] = false;
  }
  return real_close(fd);
}

extern "C" int shutdown(int fd, int how) noexcept {
  const int r = static_cast<int>(syscall(SYS_shutdown, fd, how));
  if (r != 0 || how == SHUT_RD || fd >= largest) return r;
  const locked lock;
  has_shut_down[fd] = true;
  for (queue* q : queues) {
    if (q == nullptr || !q->notes[1][fd].used) continue;
    epoll_event event{};  // checked again
    event.events = mask_of[1] | ((q->notes[1][fd].flags & EV_CLEAR) != 0 ? std::uint32_t{EPOLLET} : 0u);
    event.data.fd = fd;
    epoll_ctl(q->parts[1], EPOLL_CTL_MOD, fd, &event);
  }
  return r;
}
