// Fetches a page by HTTP/1.1 (RFC 9110, 9112): bodies with a length, in chunks, or until the end;
// redirections.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/http_client.cpp -o http_client
//   ./http_client http://localhost:8080/
#include "anyio_net.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/http_fetch.hpp"
#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: http_client [--head] [--output FILE] [--max-bytes N] [--max-time SECONDS] URL\n"
    "\n"
    "Writes the page at URL, which begins with http://, to standard output or FILE; with --head only the\n"
    "head of the answer. FILE is created only when the page is complete. Follows at most ten redirections.\n"
    "Fails when nothing arrives for 30 seconds, when the page is longer than N bytes (default: 1 GiB), or\n"
    "after SECONDS (default: an hour). No control characters except line ends and tabs are written to a\n"
    "terminal.\n"
    "\n"
    "exit code: 0 with the page, 1 without (standard error says why), 2 for a wrong command line, 130 after\n"
    "Ctrl-C\n";

struct settings {
  http::wanted page;
  std::string output;
  std::chrono::seconds max_time = 1h;

  settings() = default;
};

static anyio::task<int> fetch_page(const http::wanted& page, std::FILE* out) {
  const std::string failure = co_await http::fetch(page, out);
  if (!failure.empty()) std::cerr << "http_client: " << failure << '\n';
  co_return failure.empty() ? 0 : 1;
}

static anyio::task<int> until_interrupted(const settings& s, std::FILE* out) {
  anyio::signal_receiver signals = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  const auto outcome =
      co_await anyio::when_any(anyio::fail_after(s.max_time, fetch_page(s.page, out)), signals.receive());
  co_return outcome.index() == 0 ? std::get<0>(outcome) : 128 + std::get<1>(outcome);
}

static int run(const settings& s, std::FILE* out) {
  try {
    const int code = anyio::run(until_interrupted(s, out));
    if (std::fflush(out) == 0) return code;
    std::perror("http_client: write");
  } catch (const anyio::exception& e) {
    std::cerr << "http_client: " << printable(e.what()) << '\n';
  }
  return 1;
}

// Into a temporary file beside the target, which is renamed when it is complete.
static int run_into_file(const settings& s) {
  const std::string part = s.output + ".part";
  std::FILE* const out = std::fopen(part.c_str(), "wb");
  if (out == nullptr) {
    std::perror(("http_client: " + part).c_str());
    return 1;
  }
  int code = run(s, out);
  std::fclose(out);
  if (code == 0 && std::rename(part.c_str(), s.output.c_str()) != 0) {
    std::perror(("http_client: " + s.output).c_str());
    code = 1;
  }
  if (code != 0) std::remove(part.c_str());
  return code;
}

static std::optional<settings> parse(const std::vector<std::string_view>& words) {
  settings s;
  std::optional<http::url> place;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool last = i + 1 == words.size();
    const auto next = http::number(last ? "" : words[i + 1]);
    if (words[i] == "--head") {
      s.page.head_only = true;
    } else if (words[i] == "--output" && !last) {
      s.output = words[++i];
    } else if (words[i] == "--max-bytes" && next) {
      s.page.max_bytes = *next;
      ++i;
    } else if (words[i] == "--max-time" && next && *next < 1'000'000) {
      s.max_time = std::chrono::seconds(*next);
      ++i;
    } else if (last) {
      place = http::parse_url(words[i]);
    } else {
      return std::nullopt;
    }
  }
  if (!place) return std::nullopt;
  s.page.place = *std::move(place);
  return s;
}

int main(int argc, char** argv) {
  const auto s = parse(words_of(argc, argv, help));
  if (!s) show_help(help, false);
  return s->output.empty() ? run(*s, stdout) : run_into_file(*s);
}
