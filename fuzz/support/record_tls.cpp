// Records the wire of a whole TLS connection, as seeds for tls_client and tls_server: record_tls FOLDER.
//
// Randomness comes from the simulation, and each end by itself draws the same in every run; so the ends are
// run in turns from the beginning, each with all answers of the other one so far, until both have finished.
// Build it like a target; run it again when mbedTLS, or the order of draws, has changed.
#include <cstdio>
#include <string>
#include <vector>

#include "tls_wire.hpp"

namespace {

using wire = std::vector<std::byte>;

anyio::task<> run_end(bool server_side, const wire& came, bool speaks, wire& went) {
  const auto context = fuzz::make_context();
  fuzz::tls_end end(*context, server_side);
  end.drive();
  end.give(came);
  end.drive();
  FUZZ_CHECK(!end.failed && end.complete == speaks);
  if (speaks) {
    std::size_t n = 0;
    FUZZ_CHECK(end.engine().write("plaintext", n) == anyio::tls_status::ok);
    FUZZ_CHECK(end.engine().close() == anyio::tls_status::ok);
  }
  const auto out = end.pipe_.tx.data();
  went.assign(out.begin(), out.end());
  co_return;
}

wire answers(bool server_side, const wire& came, bool speaks = false) {
  wire went;
  fuzz::check(anyio::sim::run(fuzz::new_options(), run_end(server_side, came, speaks, went)));
  return went;
}

void write_seed(const std::string& path, char step, const wire& bytes) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  FUZZ_CHECK(file != nullptr);
  std::fputc(step, file);
  std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  FUZZ_CHECK(argc == 2);
  const std::string folder = argv[1];
  const wire hello = answers(false, {});
  const wire flight = answers(true, hello);
  const wire client = answers(false, flight);       // the hello, its keys and its Finished
  const wire server = answers(true, client, true);  // finished, and sends data
  const wire last = answers(false, server, true);
  write_seed(folder + "/tls_server/client-hello", 0, hello);
  write_seed(folder + "/tls_server/whole-connection", 0, last);
  write_seed(folder + "/tls_server/whole-connection-in-pieces-of-7", 7, last);
  write_seed(folder + "/tls_client/server-flight", 0, flight);
  write_seed(folder + "/tls_client/whole-connection", 0, server);
  write_seed(folder + "/tls_client/whole-connection-in-pieces-of-7", 7, server);
  return 0;
}
