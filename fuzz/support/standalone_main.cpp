// A main for targets without a fuzzing engine: replays files and directories, and creates random input.
//
//   target FILE|FOLDER|-...                        each input once; `-` is the standard input
//   target --seed N --iterations M [--max-size S]  random inputs
//
// An input that takes longer than --timeout seconds (default 20), or fails, is named, and the process ends by
// the signal. Compiled with afl-clang-fast and called without arguments it works with AFL++.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <unistd.h>

extern "C" void __attribute__((weak)) __sanitizer_set_death_callback(void (*callback)());
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

#if defined(__AFL_FUZZ_TESTCASE_LEN)
__AFL_FUZZ_INIT();
#endif

namespace {

unsigned timeout_seconds = 20;
std::string current;  // the current input, for the handler: written before, only read there

void say_where(int signal) {
  constexpr std::string_view words = "\nthe input was ";
  [[maybe_unused]] ssize_t ignored = ::write(STDERR_FILENO, words.data(), words.size());
  ignored = ::write(STDERR_FILENO, current.data(), current.size());
  ignored = ::write(STDERR_FILENO, "\n", 1);
  if (signal == SIGALRM) {
    constexpr std::string_view late = "the input took too long\n";
    ignored = ::write(STDERR_FILENO, late.data(), late.size());
    signal = SIGABRT;
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

/// A sanitizer's own report is printed first, if there is one.
void name_input() { say_where(SIGABRT); }

void try_one(const std::vector<std::uint8_t>& bytes) {
  // A copy of exactly this size, so that a sanitizer detects every read beyond it.
  const auto exact = std::make_unique<std::uint8_t[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), exact.get());
  ::alarm(timeout_seconds);
  LLVMFuzzerTestOneInput(exact.get(), bytes.size());
  ::alarm(0);
}

bool read_all(std::FILE* file, std::vector<std::uint8_t>& bytes) {
  std::uint8_t block[4096];
  while (const std::size_t n = std::fread(block, 1, sizeof block, file))
    bytes.insert(bytes.end(), block, block + n);
  return std::ferror(file) == 0;
}

bool replay_file(const std::string& path) {
  current = path;
  std::vector<std::uint8_t> bytes;
  std::FILE* const file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  const bool read = file != nullptr && read_all(file, bytes);
  if (file != nullptr && file != stdin) std::fclose(file);
  if (!read) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  try_one(bytes);
  return true;
}

/// The number of inputs run; -1 if one could not be read.
long replay(const std::string& path) {
  std::error_code status;
  if (path == "-" || !std::filesystem::is_directory(path, status)) return replay_file(path) ? 1 : -1;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path, status))
    if (entry.is_regular_file(status)) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  for (const std::string& file : files)
    if (!replay_file(file)) return -1;
  return static_cast<long>(files.size());
}

std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15;  // splitmix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Zeros, small numbers and random bytes, in runs, so that both plain programs and wild ones result.
std::vector<std::uint8_t> random_input(std::uint64_t seed, std::size_t most) {
  std::uint64_t state = seed;
  std::vector<std::uint8_t> bytes(next_random(state) % (most + 1));
  std::size_t i = 0;
  while (i < bytes.size()) {
    const std::uint64_t r = next_random(state);
    const unsigned mask = (r & 3) == 0 ? 0 : (r & 3) == 1 ? 15 : 255;
    for (std::size_t n = 1 + (r >> 8) % 16; n != 0 && i < bytes.size(); --n)
      bytes[i++] = static_cast<std::uint8_t>(next_random(state) & mask);
  }
  return bytes;
}

void print_rate(long count, std::chrono::steady_clock::time_point begin) {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  std::printf("%ld inputs, %.0f exec/s\n", count, static_cast<double>(count) / std::max(time.count(), 1e-6));
}

int serve_afl() {
#if defined(__AFL_FUZZ_TESTCASE_LEN)
  __AFL_INIT();
  const unsigned char* const shared = __AFL_FUZZ_TESTCASE_BUF;
  while (__AFL_LOOP(10000)) {
    const auto size = static_cast<std::size_t>(__AFL_FUZZ_TESTCASE_LEN);
    try_one(std::vector<std::uint8_t>(shared, shared + size));
  }
  return 0;
#else
  std::fprintf(stderr,
               "usage: target FILE|FOLDER|-...  or  --seed N --iterations M [--max-size S] [--timeout S]\n");
  return 2;
#endif
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGALRM, SIGABRT}) std::signal(signal, say_where);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(name_input);
  } else {
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, say_where);
  }
  std::uint64_t seed = 0;
  std::uint64_t iterations = 0;
  std::size_t max_size = 512;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool is_option = word.starts_with("--");
    if (is_option && i + 1 == argc) return serve_afl();
    const std::uint64_t value = is_option ? std::strtoull(argv[++i], nullptr, 0) : 0;
    if (word == "--seed") {
      seed = value;
    } else if (word == "--iterations") {
      iterations = value;
    } else if (word == "--max-size") {
      max_size = static_cast<std::size_t>(value);
    } else if (word == "--timeout") {
      timeout_seconds = static_cast<unsigned>(value);
    } else if (is_option) {
      std::fprintf(stderr, "unknown option %s\n", argv[i - 1]);
      return 2;
    } else {
      paths.emplace_back(word);
    }
  }
  if (paths.empty() && iterations == 0) return serve_afl();
  const auto begin = std::chrono::steady_clock::now();
  long count = 0;
  for (const std::string& path : paths) {
    const long n = replay(path);
    if (n < 0) return 1;
    count += n;
  }
  for (std::uint64_t i = 0; i < iterations; ++i, ++count) {
    current = "--seed " + std::to_string(seed + i) + " --iterations 1 --max-size " + std::to_string(max_size);
    try_one(random_input(seed + i, max_size));
  }
  print_rate(count, begin);
  return 0;
}
