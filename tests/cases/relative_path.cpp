// A listener at a relative path removes its own file after chdir, and no other file of that name.
#include "case.hpp"

#include <sys/stat.h>

#include "support/temp_dir.hpp"

using namespace anyio;

int main() {
  const support::temp_dir first;
  const support::temp_dir second;
  cases::verdict verdict;
  loop here;
  if (::chdir(first.path().c_str()) != 0) return cases::skipped;
  auto listener = run(create_unix_listener("s", {.unlink_on_close = true}));
  if (::chdir(second.path().c_str()) != 0) return cases::skipped;
  auto other = run(create_unix_listener("s"));
  listener.close();
  struct stat status {};
  const bool left = ::lstat(first.path("s").c_str(), &status) == 0;
  verdict.expect(!left, "its own file", left ? "left behind" : "removed");
  const bool kept = ::lstat(second.path("s").c_str(), &status) == 0;
  verdict.expect(kept, "a file of that name elsewhere", kept ? "kept" : "removed");
  return ::chdir("/") == 0 ? verdict.status() : cases::wrong;
}
