// The test program's main. It runs the cases, fails those that leave descriptors open or close descriptors of
// others, and fails the run if threads or temporary directories remain at its end.
//
// With ANYIO_NET_TEST_MEMORY set in the environment it also prints, for information, how many allocations
// each case left: caches of the library and doctest's own records are included.
#define DOCTEST_CONFIG_IMPLEMENT
#include <dirent.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "allocations.hpp"
#include "leftovers.hpp"
#include "simulated_runs.hpp"
#include "temp_dir.hpp"

namespace support {

bool threads_may_remain = false;

namespace {

/// The names in a directory, without those that begin with a dot, and without the descriptor that reads it.
std::vector<std::string> names_in(const char* folder) {
  std::vector<std::string> names;
  DIR* directory = ::opendir(folder);
  if (directory == nullptr) return names;
  const std::string self = std::to_string(::dirfd(directory));
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.' && entry->d_name != self) names.emplace_back(entry->d_name);
  }
  ::closedir(directory);
  return names;
}

/// Threads before the first test: the thread sanitizer has one in the background, emulators may have some.
[[maybe_unused]] std::size_t own_threads = ANYIO_NET_TEST_TSAN ? 2 : 1;

/// Open descriptors, and what each one refers to.
std::map<std::string, std::string> open_descriptors() {
#if defined(__linux__)
  const std::string folder = "/proc/self/fd";
#else
  const std::string folder = "/dev/fd";
#endif
  std::map<std::string, std::string> found;
  for (const std::string& name : names_in(folder.c_str())) {
    char target[256] = "";
    const auto size = ::readlink((folder + '/' + name).c_str(), target, sizeof target - 1);
    found[name] = std::string(target, size > 0 ? static_cast<std::size_t>(size) : 0);
  }
  return found;
}

/// Waits while helper threads finish. True if the condition became true.
template <class Condition>
bool holds_soon(Condition condition) {
  for (int i = 0; i < 400; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

class leftovers_listener : public doctest::IReporter {
 public:
  explicit leftovers_listener(const doctest::ContextOptions&) {}

  void test_case_start(const doctest::TestCaseData& data) override {
    name_ = data.m_name;
    descriptors_ = open_descriptors();
    live_ = live_allocations();
  }

  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    if (crashed_) return;
    if (show_memory_) {
      std::printf("memory: %+lld allocations after \"%s\"\n",
                  static_cast<long long>(live_allocations() - live_), name_);
    }
    if (holds_soon([this] { return open_descriptors() == descriptors_; })) return;
    const auto now = open_descriptors();
    for (const auto& [fd, what] : now) {
      if (!descriptors_.contains(fd))
        complain("left descriptor " + fd + " open: " + what);
      else if (descriptors_[fd] != what)
        complain("replaced descriptor " + fd + ": now " + what);
    }
    for (const auto& [fd, what] : descriptors_) {
      if (!now.contains(fd)) complain("closed descriptor " + fd + ", not its own: " + what);
    }
    if (stats.testCaseSuccess) ++failures_;
  }

  void test_run_end(const doctest::TestRunStats& stats) override {
    if (crashed_) return;
    name_ = "the whole run";
    unsigned failures = failures_;
#if defined(__linux__)
    const auto threads = [] { return names_in("/proc/self/task").size(); };
    if (!threads_may_remain && !holds_soon([&] { return threads() <= own_threads; })) {
      complain("left threads running: " + std::to_string(threads() - own_threads));
      ++failures;
    }
#endif
    for (const std::string& folder : names_in("/tmp")) {
      if (!folder.starts_with(temp_dir_prefix())) continue;
      complain("left /tmp/" + folder);
      ++failures;
    }
    if (simulated_runs != 0) {  // for tools/make/run_tests.py
      std::printf("record: {\"simulated_runs\": %llu}\n", static_cast<unsigned long long>(simulated_runs));
    }
    // doctest counts a case before its listeners are told of the end. The object is doctest's own context,
    // not const; its summary and the exit status, made after this call, are then correct.
    auto& counted = const_cast<doctest::TestRunStats&>(stats);
    counted.numTestCasesFailed =
        std::min(counted.numTestCasesFailed + failures, counted.numTestCasesPassingFilters);
  }

  void test_case_exception(const doctest::TestCaseException& exception) override {
    crashed_ = crashed_ || exception.is_crash;
  }

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override { own_threads = std::max(own_threads, names_in("/proc/self/task").size()); }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  void complain(const std::string& what) const {
    std::printf("LEFTOVER: \"%s\" %s\n", name_, what.c_str());
    std::fflush(stdout);
  }

  const char* name_ = "";
  std::map<std::string, std::string> descriptors_;
  std::int64_t live_ = 0;
  unsigned failures_ = 0;
  bool crashed_ = false;
  bool show_memory_ = std::getenv("ANYIO_NET_TEST_MEMORY") != nullptr;
};

}  // namespace
}  // namespace support

REGISTER_LISTENER("leftovers", 1, support::leftovers_listener);

int main(int argc, char** argv) { return doctest::Context(argc, argv).run(); }
