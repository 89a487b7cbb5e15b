// A child process whose standard input, output and error stream are pipes. On Linux the end of the process is
// awaited through a descriptor, pidfd_open(2), without a signal handler and without a thread.
#pragma once

#include "anyio_net.hpp"

#include <cerrno>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

extern char** environ;

class child_process {
 public:
  anyio::fd_stream input, output, errors;  // the ends of this process: write to the first, read the others

  /// Starts the program `words[0]`, which is looked up in PATH, with the other words as its arguments. The
  /// child inherits the environment and no descriptor except its ends of the three pipes.
  static anyio::result<child_process> start(std::vector<std::string> words) {
    if (words.empty()) return anyio::error(anyio::errc::invalid_argument, 0, "start a process");
    anyio::unique_fd input[2], output[2], errors[2];
    if (!make_pipe(input) || !make_pipe(output) || !make_pipe(errors)) return last_error("pipe");

    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    // dup2 clears close-on-exec: these three are the only descriptors that the program gets.
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, input[0].get(), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, output[1].get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, errors[1].get(), STDERR_FILENO);
    child_process child;
    const int failure =
        ::posix_spawnp(&child.id_, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (failure != 0) {
      child.id_ = -1;
      return anyio::error(anyio::errc::os_error, failure, "start a process");
    }
#if defined(SYS_pidfd_open)
    child.end_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child.id_, 0)));
#endif
    if (const auto taken = take(input[1], child.input); !taken) return taken.error();
    if (const auto taken = take(output[0], child.output); !taken) return taken.error();
    if (const auto taken = take(errors[0], child.errors); !taken) return taken.error();
    return child;
  }

  child_process(child_process&& other) noexcept
      : input(std::move(other.input)),
        output(std::move(other.output)),
        errors(std::move(other.errors)),
        id_(std::exchange(other.id_, -1)),
        end_(std::move(other.end_)) {}
  child_process& operator=(child_process&&) = delete;

  /// Kills a child that runs, and waits until it has ended.
  ~child_process() {
    if (id_ < 0) return;
    kill(SIGKILL);
    reap();
  }

  pid_t id() const { return id_; }

  /// Sends a signal. Has no effect on a child whose status wait() has returned: its number may be used again.
  void kill(int signal) const {
    if (id_ > 0) ::kill(id_, signal);
  }

  /// Waits for the end of the child and returns its status as waitpid(2) does. A wait that is cancelled
  /// leaves the child running, and may be repeated. The status can be taken once.
  anyio::task<int> wait() {
    if (id_ < 0) co_await anyio::raise(anyio::error(anyio::errc::invalid_argument, ECHILD, "wait"));
    if (end_) {
      co_await anyio::wait_readable(end_.get());
    } else {  // not Linux, or older than 5.3: a helper thread waits, and leaves the status where it is
      co_await anyio::to_thread::run_sync([id = id_] {
        siginfo_t info;
        while (::waitid(P_PID, static_cast<id_t>(id), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
        }
      });
    }
    co_return reap();
  }

 private:
  child_process() = default;

  static anyio::error last_error(const char* operation) { return {anyio::errc::os_error, errno, operation}; }

  static bool make_pipe(anyio::unique_fd (&pipe)[2]) {
    int ends[2];
#if defined(__APPLE__)
    if (::pipe(ends) != 0) return false;
    for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
#else
    if (::pipe2(ends, O_CLOEXEC) != 0) return false;
#endif
    pipe[0].reset(ends[0]);
    pipe[1].reset(ends[1]);
    return true;
  }

  static anyio::result<> take(anyio::unique_fd& from, anyio::fd_stream& into) {
    auto stream = anyio::fd_stream::from_fd(from.get());
    if (!stream) return stream.error();
    static_cast<void>(from.release());
    into = *std::move(stream);
    return {};
  }

  int reap() {
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    end_.reset();
    return status;
  }

  pid_t id_ = -1;
  anyio::unique_fd end_;  // readable once the child has ended; empty where there is no pidfd_open(2)
};
