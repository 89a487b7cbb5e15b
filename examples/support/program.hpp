// What the main functions of the examples have in common: the words of the command line, and how a program
// ends.
#pragma once

#include "anyio_net.hpp"

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "printable.hpp"

/// Prints the help and ends the program, because somebody asked for it or because the command line is wrong.
[[noreturn]] inline void show_help(std::string_view help, bool asked) {
  std::fwrite(help.data(), 1, help.size(), asked ? stdout : stderr);
  std::exit(asked && std::fflush(stdout) == 0 ? 0 : 2);
}

/// The words of the command line. Shows the help if it is asked for, or if their number is wrong.
inline std::vector<std::string_view> words_of(int argc, char** argv, std::string_view help,
                                              std::size_t at_least = 0, std::size_t at_most = SIZE_MAX) {
  std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) show_help(help, true);
  if (words.size() < at_least || words.size() > at_most) show_help(help, false);
  return words;
}

/// A port number; shows the help if it is none.
inline std::uint16_t port_of(std::string_view word, std::string_view help) {
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), port);
  if (word.empty() || failure != std::errc() || end != word.data() + word.size()) show_help(help, false);
  return port;
}

/// Runs the program, which is a task that returns nothing or its exit code. An error is printed, and the exit
/// code is then 1.
template <class T>
int run_program(std::string_view name, anyio::task<T> program) {
  const anyio::result<T> outcome = anyio::run(anyio::as_result(std::move(program)));
  if (!outcome) {
    std::fprintf(stderr, "%.*s: %s\n", static_cast<int>(name.size()), name.data(),
                 printable(outcome.error().message()).c_str());
    return 1;
  }
  if constexpr (!std::is_void_v<T>) return *outcome;
  return 0;
}
