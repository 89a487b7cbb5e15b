// A FIFO that has had no writer yet has not ended, and a FIFO that has ended may get another writer.
#include "case.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "support/temp_dir.hpp"

using namespace anyio;

template <class Face>
void read_fifo(cases::verdict& verdict) {
  const support::temp_dir folder;
  const std::string path = folder.path("fifo");
  if (::mkfifo(path.c_str(), 0600) != 0) return;
  loop here;
  auto in = fd_stream::from_fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)).value();
  for (const char* const text : {"first", "second"}) {
    support::waiting<std::string> received;
    Face::start(in.receive(), received);
    support::settle();
    if (received.done()) {  // the end of the earlier writer
      const auto end = received.get();
      verdict.expect(text[0] == 's' && end.error() == errc::end_of_stream, "before a writer came",
                     end.error());
      const int out = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
      (void)!::write(out, text, 5);
      Face::start(in.receive(), received);
      ::close(out);
    } else {
      const int out = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
      (void)!::write(out, text, 5);
      ::close(out);
    }
    const auto got = received.get();
    verdict.expect(got && got->size() == 5, text, got ? *got : got.error().message());
  }
}

int main() {
  cases::end_when_it_hangs();
  cases::verdict verdict;
  read_fifo<support::by_callback>(verdict);
  read_fifo<support::by_coroutine>(verdict);
  return verdict.status();
}
