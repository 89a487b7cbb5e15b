// Errors: their texts and their comparisons.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/dies.hpp"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace {

using anyio::errc;
using anyio::error;

constexpr errc all[] = {errc::ok,
                        errc::end_of_stream,
                        errc::closed_resource,
                        errc::broken_resource,
                        errc::busy_resource,
                        errc::incomplete_read,
                        errc::delimiter_not_found,
                        errc::timed_out,
                        errc::cancelled,
                        errc::invalid_argument,
                        errc::name_resolution,
                        errc::tls,
                        errc::fds_truncated,
                        errc::not_supported,
                        errc::deadlock,
                        errc::protocol,
                        errc::os_error};

TEST_CASE("every errc has its own name and text") {
  CHECK(anyio::to_string(errc::ok) == "ok");
  CHECK(anyio::to_string(errc::end_of_stream) == "end_of_stream");
  CHECK(anyio::to_string(errc::os_error) == "os_error");
  for (const errc a : all) {
    CHECK(!anyio::to_string(a).empty());
    CHECK(!error(a).message().empty());
    for (const errc b : all) {
      CHECK((a == b) == (anyio::to_string(a) == anyio::to_string(b)));
      CHECK((a == b) == (error(a).message() == error(b).message()));
    }
  }
}

TEST_CASE("an error is small, trivially copyable, and ok by default") {
  static_assert(std::is_trivially_copyable_v<error>);
  static_assert(sizeof(error) <= 32);
  CHECK(error() == errc::ok);
  CHECK(error().os_error() == 0);
  CHECK(error().operation().empty());
}

TEST_CASE("a message is one line that says what failed and why") {
  CHECK(error(errc::os_error, ECONNREFUSED, "connect").message() ==
        "connect: connection refused (ECONNREFUSED)");
  CHECK(error(errc::broken_resource, ECONNRESET, "receive").message() ==
        "receive: connection reset by peer (ECONNRESET)");
  CHECK(error(errc::timed_out).message() == "timed out");
  CHECK(error(errc::end_of_stream, 0, "receive").message() == "receive: end of stream");
  const std::string unknown = error(errc::os_error, 4242, "ioctl").message();
  CHECK(unknown.find("ioctl: ") == 0);
  CHECK(unknown.find("4242") != std::string::npos);
  CHECK(unknown.find('\n') == std::string::npos);
}

TEST_CASE("every errno of the system has its own name and text") {
  std::set<std::string> seen;
  for (int number = 1; number < 1024; ++number) {
    CAPTURE(number);
    const std::string name(anyio::detail::errno_name(number));
    const std::string message = error(errc::os_error, number, "ioctl").message();
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
#if __GLIBC_PREREQ(2, 32)
    const char* const known = ::strerrorname_np(number);
    CHECK(name == (known != nullptr ? known : ""));
#endif
#endif
    const std::string_view words = std::strerror(number);
    const bool is_known = words.find("nknown error") == words.npos && words.find("No error") == words.npos;
    CHECK(!name.empty() == is_known);
    if (name.empty()) {
      CHECK(message == "ioctl: unknown error (errno " + std::to_string(number) + ")");
      continue;
    }
    CHECK(name.front() == 'E');
    CHECK(message.find("ioctl: ") == 0);
    CHECK(message.find("unknown") == message.npos);
    CHECK(message.find(" (" + name + ")") != message.npos);
    CHECK(seen.insert(message.substr(0, message.find(" ("))).second);
  }
}

TEST_CASE("an error compares with errc by its code and with std::errc by its errno") {
  const error reset(errc::broken_resource, ECONNRESET, "send");
  CHECK(reset == errc::broken_resource);
  CHECK(errc::broken_resource == reset);
  CHECK(reset != errc::os_error);
  CHECK(reset == std::errc::connection_reset);
  CHECK(std::errc::connection_reset == reset);
  CHECK(reset != std::errc::broken_pipe);
  CHECK(error(errc::tls) != std::errc::connection_reset);
  CHECK(reset == error(errc::broken_resource, ECONNRESET, "send"));
  CHECK(reset != error(errc::broken_resource, ECONNRESET, "receive"));
  CHECK(reset.operation() == "send");
}

TEST_CASE("a std::error_code holds the errno, or the library's code") {
  const std::error_code system = make_error_code(error(errc::os_error, ENOENT, "open"));
  CHECK(system == std::errc::no_such_file_or_directory);
  const std::error_code own = make_error_code(error(errc::end_of_stream));
  CHECK(own.value() == static_cast<int>(errc::end_of_stream));
  CHECK(own.message() == "end of stream");
  CHECK(std::string_view(own.category().name()) == "anyio");
  CHECK(own == make_error_code(errc::end_of_stream));
  CHECK(own != make_error_code(errc::tls));
  CHECK(!make_error_code(error()));
}

#if defined(__cpp_exceptions)
template <class E>
bool throws_its_own(errc code) {
  const anyio::result<> r = error(code, 0, "test");
  try {
    r.value();
  } catch (const E& e) {
    const anyio::exception& base = e;
    return base.error() == code && std::string_view(e.what()) == error(code, 0, "test").message();
  } catch (...) {
  }
  return false;
}

TEST_CASE("each errc has its own exception type") {
  CHECK(throws_its_own<anyio::end_of_stream>(errc::end_of_stream));
  CHECK(throws_its_own<anyio::closed_resource>(errc::closed_resource));
  CHECK(throws_its_own<anyio::broken_resource>(errc::broken_resource));
  CHECK(throws_its_own<anyio::busy_resource>(errc::busy_resource));
  CHECK(throws_its_own<anyio::incomplete_read>(errc::incomplete_read));
  CHECK(throws_its_own<anyio::delimiter_not_found>(errc::delimiter_not_found));
  CHECK(throws_its_own<anyio::timed_out>(errc::timed_out));
  CHECK(throws_its_own<anyio::cancelled>(errc::cancelled));
  CHECK(throws_its_own<anyio::invalid_argument>(errc::invalid_argument));
  CHECK(throws_its_own<anyio::name_resolution>(errc::name_resolution));
  CHECK(throws_its_own<anyio::tls_error>(errc::tls));
  CHECK(throws_its_own<anyio::fds_truncated>(errc::fds_truncated));
  CHECK(throws_its_own<anyio::not_supported>(errc::not_supported));
  CHECK(throws_its_own<anyio::deadlock>(errc::deadlock));
  CHECK(throws_its_own<anyio::protocol_error>(errc::protocol));
  CHECK(throws_its_own<anyio::os_error>(errc::os_error));
  static_assert(std::is_base_of_v<std::runtime_error, anyio::exception>);
}
#else
TEST_CASE("without exceptions, value() called on an error aborts") {
  CHECK(support::dies([] {
    const anyio::result<int> r = errc::tls;
    static_cast<void>(r.value());
  }));
  CHECK(support::dies([] { anyio::run(anyio::raise(errc::tls)); }));
}
#endif

}  // namespace
