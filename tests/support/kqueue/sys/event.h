// kqueue(2) for tests on Linux: the part that the library uses, implemented with epoll.
//
// It follows the manual pages of FreeBSD and macOS wherever a test could detect a difference:
//
// - a read and a write filter of one descriptor are separate, and are reported as two events;
// - EV_CLEAR: an event is repeated only after something new; without it, while the condition holds;
// - EV_ONESHOT: the filter is removed when it has been reported;
// - EV_EOF has `data` with the number of unread bytes; the write filter has it after a hang-up and
//   after a local shutdown;
// - an error of a change is an entry with EV_ERROR, or errno if there is no room for one; EV_RECEIPT requests
//   an entry for every change, 0 included, and then no event is taken;
// - closing a descriptor removes its filters, although a duplicate may keep the open file;
// - a forked child does not inherit a kqueue: its number is free there;
// - the kqueue is itself readable when events are pending, and not close-on-exec from the start.
//
// Limits: Linux does not show the pending error of a socket without removing it, so `fflags` beside EV_EOF
// only says whether there is one (ECONNRESET, or 0); the number of connections waiting at a listener is 1;
// and a change of a socket's state may produce a write event that the BSDs would not. Other filters and flags
// are rejected with EINVAL.
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

/// Not part of kqueue(2): the number of descriptors it watches.
int kqueue_for_tests_watched(int queue);
}
