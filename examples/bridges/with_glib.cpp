// GLib and anyio_net in one thread: once inside GLib's main loop, as a source, once GLib's main context
// inside our loop. GTK and everything else that runs on a GMainContext is reached by the same means.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/bridges/with_glib.cpp $(pkg-config --cflags --libs glib-2.0) -o
//   with_glib
#include "anyio_net.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <fcntl.h>
#include <glib-unix.h>
#include <glib.h>
#include <sys/socket.h>

using namespace std::chrono_literals;

/// Runs a loop inside a main context, on whose thread this is called, until the object is destroyed.
class loop_in_glib {
 public:
  loop_in_glib(GMainContext* context, anyio::loop& net) {
    static GSourceFuncs functions = {prepare, check, dispatch, nullptr, nullptr, nullptr};
    source_ = reinterpret_cast<source*>(::g_source_new(&functions, sizeof(source)));
    source_->net = &net;
    source_->tag = ::g_source_add_unix_fd(&source_->base, net.native_handle(), G_IO_IN);
    ::g_source_attach(&source_->base, context);
  }
  loop_in_glib(const loop_in_glib&) = delete;
  loop_in_glib& operator=(const loop_in_glib&) = delete;
  ~loop_in_glib() {
    ::g_source_destroy(&source_->base);
    ::g_source_unref(&source_->base);
  }

 private:
  struct source {  // GLib makes it, with zeros
    GSource base;
    anyio::loop* net;
    gpointer tag;
  };

  static anyio::loop& net_of(GSource* s) { return *reinterpret_cast<source*>(s)->net; }

  // GLib is about to wait: whatever was started in its callbacks counts.
  static gboolean prepare(GSource* s, gint* timeout) {
    const auto left = net_of(s).time_until_next();
    if (left == anyio::duration::max()) return *timeout = -1, FALSE;
    const auto most = std::min<anyio::duration>(left, 1h);
    *timeout = static_cast<gint>(std::chrono::ceil<std::chrono::milliseconds>(most).count());
    return *timeout == 0;
  }
  static gboolean check(GSource* s) {
    return ::g_source_query_unix_fd(s, reinterpret_cast<source*>(s)->tag) != 0 ||
           net_of(s).time_until_next() == 0s;
  }
  static gboolean dispatch(GSource* s, GSourceFunc, gpointer) {
    net_of(s).run_once(0s);
    return G_SOURCE_CONTINUE;
  }

  source* source_;
};

static anyio::task<> watch(int fd, bool for_writing, anyio::event& ready) {
  static_cast<void>(for_writing ? co_await as_result(anyio::wait_writable(fd))
                                : co_await as_result(anyio::wait_readable(fd)));
  ready.set();  // GLib looks itself what it is, an error too
}

/// Runs a main context inside our loop until it is cancelled. GLib has no descriptor of its own: it names
/// those that it waits for. Whoever attaches a source on this thread, outside of GLib's callbacks, calls
/// g_main_context_wakeup() then.
static anyio::task<> run_glib(GMainContext* context) {
  struct owner {  // then other threads that attach sources wake this one
    GMainContext* context;
    explicit owner(GMainContext* c) : context(c) { ::g_main_context_acquire(c); }
    ~owner() { ::g_main_context_release(context); }
  } const held(context);
  std::vector<GPollFD> fds(8);
  for (;;) {
    gint priority = 0, timeout = 0, count = 0;
    ::g_main_context_prepare(context, &priority);
    while ((count = ::g_main_context_query(context, priority, &timeout, fds.data(),
                                           static_cast<gint>(fds.size()))) > static_cast<gint>(fds.size()))
      fds.resize(static_cast<std::size_t>(count));

    // Two sources may name one descriptor; it is watched once for each direction.
    anyio::event ready;
    anyio::task_group watches;
    for (gint i = 0; i < count; ++i) {
      for (const bool for_writing : {false, true}) {
        const auto wants = [&](const GPollFD& f) {
          return f.fd == fds[static_cast<std::size_t>(i)].fd &&
                 (f.events & (for_writing ? G_IO_OUT : G_IO_IN | G_IO_PRI)) != 0;
        };
        const bool is_first = std::none_of(fds.begin(), fds.begin() + i, wants);
        if (is_first && wants(fds[static_cast<std::size_t>(i)]))
          watches.start_soon(watch(fds[static_cast<std::size_t>(i)].fd, for_writing, ready));
      }
    }
    const anyio::duration most = timeout < 0 ? anyio::duration::max() : std::chrono::milliseconds(timeout);
    co_await anyio::move_on_after(most, ready.wait());
    watches.cancel();
    static_cast<void>(co_await as_result(watches.join()));

    ::g_poll(fds.data(), static_cast<guint>(count), 0);
    if (::g_main_context_check(context, priority, fds.data(), count)) ::g_main_context_dispatch(context);
  }
}

// ---- a demonstration: one end of a connection is GLib's, the other is ours
// ---------------------------------

static constexpr int rounds = 1000;

static void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "with_glib: %s\n", what);
  std::exit(1);
}

// Calls a function on GLib's context.
template <class Source, class Callback>
static void attach(GMainContext* context, Source* made, Callback f, void* data) {
  ::g_source_set_callback(made, reinterpret_cast<GSourceFunc>(reinterpret_cast<void*>(f)), data, nullptr);
  ::g_source_attach(made, context);
  ::g_source_unref(made);
}

// GLib's end sends what it receives, until the other end has closed.
static gboolean echo(gint fd, GIOCondition, gpointer) {
  char bytes[64];
  const ssize_t size = ::recv(fd, bytes, sizeof bytes, 0);
  if (size <= 0) return ::close(fd), G_SOURCE_REMOVE;
  check(::send(fd, bytes, static_cast<std::size_t>(size), 0) == size, "send");
  return G_SOURCE_CONTINUE;
}

static anyio::unix_stream connect_to_glib(GMainContext* context) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
  attach(context, ::g_unix_fd_source_new(ends[0], G_IO_IN), echo, nullptr);
  return anyio::unix_stream::from_fd(ends[1]).value();
}

static anyio::task<> visit(GMainContext* context) {
  auto stream = connect_to_glib(context);
  ::g_main_context_wakeup(context);
  for (int i = 0; i < rounds; ++i) {
    co_await stream.send("hello");
    check(co_await stream.receive() == "hello", "another echo");
  }
}

static bool timer_ran = false;
static void start_timer(GMainContext* context, GMainLoop* main) {
  const auto fire = +[](gpointer data) -> gboolean {
    timer_ran = true;
    if (data != nullptr) ::g_main_loop_quit(static_cast<GMainLoop*>(data));
    return G_SOURCE_REMOVE;
  };
  attach(context, ::g_timeout_source_new(300), fire, main);
}

static void ours_in_theirs() {
  GMainContext* context = ::g_main_context_new();
  GMainLoop* main = ::g_main_loop_new(context, FALSE);
  anyio::loop net;
  {
    const loop_in_glib inside(context, net);
    visit(context).start([&](anyio::result<> r) {
      check(r.has_value(), "the visit failed");
      start_timer(context, main);
    });
    ::g_main_loop_run(main);
  }
  ::g_main_loop_unref(main);
  ::g_main_context_unref(context);
  check(timer_ran, "no timer");
  std::puts("a loop inside GLib's: 1000 echoes");
}

static anyio::task<> theirs_in_ours(GMainContext* context) {
  timer_ran = false;
  co_await anyio::when_any(run_glib(context), [](GMainContext* c) -> anyio::task<> {
    co_await visit(c);
    start_timer(c, nullptr);
    ::g_main_context_wakeup(c);
    while (!timer_ran) co_await anyio::sleep(10ms);
  }(context));
  std::puts("GLib's context inside a loop: 1000 echoes");
}

int main() {
  ours_in_theirs();
  GMainContext* context = ::g_main_context_new();
  anyio::run(theirs_in_ours(context));
  ::g_main_context_unref(context);
}
