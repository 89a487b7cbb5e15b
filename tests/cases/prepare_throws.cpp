// An exception from `prepare` leaves run() wherever it is called, and the loop stays usable.
#include "case.hpp"

#include <stdexcept>

using namespace anyio;

static int refuse(int, void*) { throw std::runtime_error("refused"); }

template <class Make>
void expect_refusal(cases::verdict& verdict, const char* what, Make make) {
  std::string seen = "nothing";
  for (int face = 0; face < 2; ++face) {
    try {
      if (face == 0) {
        static_cast<void>(run(as_result(make())));
      } else {
        make().start([](auto&&) {});
        loop::current().run();
      }
    } catch (const std::runtime_error& e) {
      seen = e.what();
    }
    verdict.expect(seen == "refused", what, seen);
    seen = "nothing";
  }
  bool goes_on = false;
  loop::current().post([&] { goes_on = true; });
  loop::current().run();
  verdict.expect(goes_on, what, "the loop goes on");
}

int main() {
  cases::verdict verdict;
  loop here;
  const ip_endpoint nobody{ip_address::loopback_v4(), 9};
  const int before = cases::lowest_free_descriptor();
  expect_refusal(verdict, "listener", [] { return create_tcp_listener({.prepare = refuse}); });
  expect_refusal(verdict, "UDP", [] { return create_udp_socket({.family = AF_INET, .prepare = refuse}); });
  expect_refusal(verdict, "connected UDP",
                 [&] { return create_connected_udp_socket(nobody, {.prepare = refuse}); });
  expect_refusal(verdict, "TCP", [&] { return connect_tcp(nobody, {.prepare = refuse}); });
  expect_refusal(verdict, "TCP by name", [&] { return connect_tcp("localhost", 9, {.prepare = refuse}); });
  const int after = cases::lowest_free_descriptor();
  verdict.expect(before == after, "the lowest free descriptor, before and after",
                 std::to_string(before) + ", " + std::to_string(after));
  return verdict.status();
}
