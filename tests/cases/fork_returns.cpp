// A forked child exits and destroys what it inherited. The parent's socket file stays, and none of the
// parent's connections is shut down.
#include "case.hpp"

#include <sys/stat.h>
#include <sys/wait.h>

#include "support/temp_dir.hpp"

using namespace anyio;

int main() {
  const support::temp_dir folder;
  const std::string path = folder.path("socket");
  cases::verdict verdict;
  loop parent;
  auto listener = run(create_unix_listener(path, {.unlink_on_close = true}));
  auto client = run(connect_unix(path));
  auto server = run(listener.accept());
  if (::fork() == 0) {
    // The objects that main would destroy at its end; the folder stays with the parent.
    const auto a = std::move(listener);
    const auto b = std::move(client);
    const auto c = std::move(server);
    std::exit(0);
  }
  ::wait(nullptr);
  struct stat status {};
  const bool there = ::lstat(path.c_str(), &status) == 0;
  verdict.expect(there, "the socket file", there ? "there" : "gone");
  run(client.send("still here"));
  const auto got = run(as_result(server.receive()));
  verdict.expect(got && *got == "still here", "the connection", got ? *got : got.error().message());
  listener.close();
  verdict.expect(::lstat(path.c_str(), &status) != 0, "the parent's own close", "removes the file");
  return verdict.status();
}
