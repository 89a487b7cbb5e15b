// kqueue(2) for tests on Linux: the part of it that the library uses, over epoll.
//
// It keeps to the manual pages of FreeBSD and macOS where a test could tell:
//
// - a read and a write filter of one descriptor are two things, and come as two events;
// - EV_CLEAR: an event comes again only when something new has happened; without it, as long as it holds;
// - EV_ONESHOT: the filter is gone when it has told;
// - EV_EOF comes with `data` counting what is still to be read; the write filter has it after a hang-up and
//   after this end's own shutdown;
// - an error of a change is an entry with EV_ERROR, or errno if there is no room for one; EV_RECEIPT asks
//   for an entry of every change, 0 included, and then no event is taken;
// - closing a number takes its filters out, although a duplicate may keep what it stood for open;
// - a forked child does not inherit a kqueue: its number is free there;
// - the kqueue is itself readable when events are pending, and not close-on-exec from the start.
//
// Where it cannot: Linux shows nobody the pending error of a socket without taking it away, so that `fflags`
// beside EV_EOF only tells whether there is one (ECONNRESET, or 0); the number of connections that wait at
// a listener is 1; and a socket's change of state may give the write filter an event that the BSDs would
// not. Whatever is not here (other filters and flags) is refused with EINVAL.
#pragma once

#include <stdint.h>
#include <time.h>

struct kevent {
  uintptr_t ident;
  short filter;
  unsigned short flags;
  unsigned fflags;
  intptr_t data;
  void* udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_EXCEPT (-15)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_OOB 0x0002

#define KQUEUE_FOR_TESTS 1

extern "C" {
int kqueue();
int kevent(int queue, const struct kevent* changes, int change_count, struct kevent* events, int event_count,
           const timespec* timeout);

/// Not of kqueue(2): how many descriptors it watches.
int kqueue_for_tests_watched(int queue);
}
