// Runs a command with pipes as its standard streams, shows what it prints, and reports how it ended.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/child_process.cpp -o child_process
//   ./child_process --input "3 + 4" --timeout 5 bc
#include "anyio_net.hpp"

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>

#include "support/child_process.hpp"
#include "support/program.hpp"

static constexpr std::string_view help =
    "usage: child_process [--input TEXT] [--timeout SECONDS] [--times NUMBER] COMMAND [ARGUMENT]...\n"
    "\n"
    "Runs COMMAND with TEXT and a newline as its standard input (default: nothing), and copies its standard\n"
    "output and its error stream. It has ended when its streams and the process have. After SECONDS it is\n"
    "killed. With NUMBER it runs as often, one after the other.\n"
    "\n"
    "exit code: that of the last COMMAND, or 128 and the number of the signal that ended it; 1 if it cannot\n"
    "be started, 2 for a wrong command line\n";

struct settings {
  std::string input;
  anyio::duration timeout = anyio::duration::max();
  unsigned times = 1;
  std::vector<std::string> command;

  settings() = default;
};

// A command need not read its input: a pipe without a reader is no error here.
static anyio::task<> feed(anyio::fd_stream& input, std::string_view text) {
  const auto sent = co_await as_result(input.send(text));
  input.close();  // the end of its input
  if (!sent && sent.error() != anyio::errc::broken_resource) co_await anyio::raise(sent.error());
}

static anyio::task<> show(anyio::fd_stream& from, std::FILE* to) {
  for (;;) {
    const auto bytes = co_await as_result(from.receive_view());
    if (!bytes && bytes.error() == anyio::errc::end_of_stream) co_return;
    const std::string_view text = co_await bytes;
    std::fwrite(text.data(), 1, text.size(), to);
    std::fflush(to);
  }
}

static anyio::task<int> finish(child_process& child, const settings& s) {
  co_await anyio::when_all(feed(child.input, s.input), show(child.output, stdout),
                           show(child.errors, stderr));
  co_return co_await child.wait();
}

static anyio::task<int> run_once(const settings& s) {
  child_process child = co_await child_process::start(s.command);
  std::optional<int> status = co_await anyio::move_on_after(s.timeout, finish(child, s));
  if (!status) {
    std::fputs("child_process: time is up\n", stderr);
    child.kill(SIGKILL);
    status = co_await child.wait();
  }
  if (WIFSIGNALED(*status)) {
    std::fprintf(stderr, "child_process: killed by signal %d (%s)\n", WTERMSIG(*status),
                 ::strsignal(WTERMSIG(*status)));
    co_return 128 + WTERMSIG(*status);
  }
  std::fprintf(stderr, "child_process: exit status %d\n", WEXITSTATUS(*status));
  co_return WEXITSTATUS(*status);
}

static anyio::task<int> program(const settings& s) {
  int code = 0;
  for (unsigned i = 0; i < s.times; ++i) code = co_await run_once(s);
  co_return code;
}

static unsigned number_of(std::string_view word) {
  unsigned n = 0;
  const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (failure != std::errc() || end != word.data() + word.size() || n == 0) show_help(help, false);
  return n;
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, help, 1);
  settings s;
  std::size_t i = 0;
  for (; i < words.size() && words[i].starts_with("--"); i += 2) {
    if (i + 1 == words.size()) show_help(help, false);
    const std::string_view value = words[i + 1];
    if (words[i] == "--input") {
      s.input = std::string(value) + "\n";
    } else if (words[i] == "--timeout") {
      s.timeout = std::chrono::seconds(number_of(value));
    } else if (words[i] == "--times") {
      s.times = number_of(value);
    } else {
      show_help(help, false);
    }
  }
  s.command.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
  if (s.command.empty()) show_help(help, false);
  return run_program("child_process", program(s));
}
