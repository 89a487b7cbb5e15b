// How the programs here print: one line for each event.
#pragma once

#include "anyio_net.hpp"

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

namespace outcome {

using namespace anyio;
using namespace std::chrono_literals;

inline void say(std::string_view words) {
  std::printf("%.*s\n", static_cast<int>(words.size()), words.data());
}

inline void say(std::string_view words, const error& e) { say(std::string(words) + ": " + e.message()); }

/// Prints a line when it is destroyed.
class noisy {
 public:
  explicit noisy(std::string name) : name_(std::move(name)) {}
  noisy(noisy&& other) noexcept : name_(std::exchange(other.name_, "")) {}
  noisy& operator=(noisy&&) = delete;
  ~noisy() {
    if (!name_.empty()) say("~" + name_);
  }

 private:
  std::string name_;
};

/// The content of a result, as text.
template <class T>
void tell(std::string_view what, const result<T>& r) {
  if (r)
    say(std::string(what) + ": fine");
  else
    say(what, r.error());
}

}  // namespace outcome
