#!/usr/bin/env python3
"""Checks that nothing outside the seam uses the system.

The library reaches the world through one abstract `backend`, so that a simulation can stand in its
place. This check reads src/ without comments and literals, and outside the seam rejects: system
calls, errno, clock reads, random numbers, and the headers that exist only for them.

A name is rejected as `::name` and `std::name`. Without qualification it is rejected only when no
member of the library has that name (`UNMISTAKABLE`), for `close();` inside a class is a member.

  check_seam.py [FILE...]    check these files, or all of src/
  check_seam.py --self-test  check the check
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

from cpp_text import blank

# The seam: only these files of src/ may use the system.
SEAM = ["system/epoll_*", "system/kqueue_*", "system/posix_*"]

SYSTEM_CALLS = set(
    """
    socket socketpair bind listen accept accept4 connect shutdown
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg sendfile splice tee vmsplice copy_file_range
    getsockname getpeername getsockopt setsockopt
    open openat creat close closefrom close_range read pread readv preadv write pwrite writev pwritev lseek
    pipe pipe2 dup dup2 dup3 fcntl ioctl flock lockf fsync fdatasync ftruncate truncate
    stat lstat fstat fstatat statx chmod fchmod fchmodat chown fchown unlink unlinkat rename renameat link symlink
    readlink mkdir rmdir mkdtemp mkstemp opendir readdir closedir access umask chdir getcwd realpath isatty
    poll ppoll select pselect epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    kqueue kqueue1 kevent kevent64 eventfd eventfd_read eventfd_write timerfd_create timerfd_settime timerfd_gettime
    signalfd io_uring_setup io_uring_enter inotify_init inotify_init1
    signal sigaction sigprocmask pthread_sigmask sigwait sigwaitinfo sigtimedwait sigpending sigsuspend
    sigaltstack kill raise pause alarm setitimer
    getaddrinfo getnameinfo freeaddrinfo gethostbyname gethostname getservbyname getifaddrs freeifaddrs
    if_nametoindex if_indextoname if_nameindex inet_pton inet_ntop inet_addr inet_aton inet_ntoa res_query
    clock clock_gettime clock_getres clock_nanosleep gettimeofday time times ftime localtime gmtime
    sleep usleep nanosleep sched_yield
    rand srand random srandom drand48 rand_r getrandom getentropy arc4random arc4random_buf arc4random_uniform
    fork vfork clone execl execlp execle execv execvp execvpe execve fexecve posix_spawn posix_spawnp
    wait3 wait4 waitpid waitid getpid getppid gettid getuid geteuid getgid getegid getpeereid getpeerucred
    getrlimit setrlimit prlimit getrusage sysconf sysctl sysctlbyname syscall prctl
    mmap munmap mprotect madvise memfd_create shm_open sendfd recvfd
    pthread_create pthread_kill pthread_atfork system popen
    getenv secure_getenv setenv putenv unsetenv fopen freopen fdopen tmpfile
    """.split()
)

# No member or function of the library has these names: an unqualified call can only be the system's.
UNMISTAKABLE = set(
    """
    accept4 recvmmsg sendmmsg copy_file_range socketpair pipe2 dup2 dup3 fcntl ioctl fstat lstat fchmod mkstemp
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 kqueue kqueue1 kevent kevent64
    eventfd timerfd_create timerfd_settime signalfd io_uring_setup inotify_init1
    sigaction sigprocmask pthread_sigmask sigwaitinfo sigtimedwait
    freeaddrinfo gethostbyname gethostname getifaddrs freeifaddrs
    if_nametoindex if_indextoname inet_pton inet_ntop inet_addr inet_aton inet_ntoa
    clock_gettime clock_getres clock_nanosleep gettimeofday localtime gmtime usleep nanosleep sched_yield
    srand srandom drand48 rand_r getrandom getentropy arc4random arc4random_buf arc4random_uniform
    fork vfork execv execve execvp posix_spawn waitpid getpid gettid getuid geteuid getpeereid
    getrlimit setrlimit sysconf sysctlbyname syscall prctl mmap munmap memfd_create
    pthread_create pthread_kill popen getenv secure_getenv setenv fopen
    """.split()
)

# Types share these names: `::stat` may be a type, `::stat(` is a call.
ALSO_TYPES = {"stat", "sigaction", "kevent", "flock", "statx", "clock", "signal", "time"}

# Rejected everywhere.
IDENTIFIERS = {
    "errno": "reads errno",
    "__errno_location": "reads errno",
    "random_device": "draws a random number",
    "__rdtsc": "reads a clock",
    "__builtin_ia32_rdtsc": "reads a clock",
}

STD_NAMES = {
    "filesystem": "uses the file system",
    "ifstream": "uses the file system",
    "ofstream": "uses the file system",
    "fstream": "uses the file system",
    "timespec_get": "reads a clock",
    "random_shuffle": "draws a random number",
}

# <sys/socket.h>, <netinet/*.h>, <sys/un.h>, <sys/uio.h>, <sys/types.h> and <cerrno> give types and constants too.
HEADERS = set(
    """
    sys/epoll.h sys/event.h sys/eventfd.h sys/signalfd.h sys/timerfd.h sys/inotify.h sys/poll.h sys/select.h
    unistd.h poll.h fcntl.h netdb.h signal.h csignal sys/stat.h sys/ioctl.h sys/file.h sys/mman.h sys/random.h
    sys/resource.h sys/sendfile.h sys/syscall.h sys/sysctl.h sys/time.h sys/wait.h net/if.h ifaddrs.h
    dirent.h time.h sched.h spawn.h pthread.h resolv.h filesystem fstream
    """.split()
)

# Before a name these words keep it a call; any other word makes it a declaration (`int close(`).
CALL_AFTER = {"return", "co_return", "co_await", "co_yield", "throw", "else", "do", "case", "and", "or", "not"}

TOKEN = re.compile(r"[A-Za-z_]\w*|::|->|\d[\w.']*|[^\s\w]")
INCLUDE = re.compile(r"\s*#\s*include\s*[<\"]([^>\"]+)[>\"]")
WORD = re.compile(r"[A-Za-z_]")


def is_word(token: str) -> bool:
    return bool(WORD.match(token))


def qualifier(tokens: list[str], at: int) -> str | None:
    """The qualifier of the name at `at`: None if there is none, "::" for the global scope."""
    before = tokens[at - 1] if at else ""
    if before in (".", "->"):
        return before
    if before != "::":
        return None
    owner = tokens[at - 2] if at > 1 else ""
    if owner == ">" or (is_word(owner) and owner not in CALL_AFTER):
        return owner
    return "::"


def fault_at(tokens: list[str], at: int) -> str | None:
    """The fault of the name at `at`, or None."""
    name = tokens[at]
    if name in IDENTIFIERS:
        return IDENTIFIERS[name]
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    scope = qualifier(tokens, at)
    if name == "now" and scope is not None and scope.endswith("clock"):
        return f"reads a clock ({scope}::now)"
    if scope == "std" and name in STD_NAMES:
        return f"{STD_NAMES[name]} (std::{name})"
    if scope == "this_thread" and name in ("sleep_for", "sleep_until", "yield"):
        return f"sleeps (std::this_thread::{name})"
    if name not in SYSTEM_CALLS or (name in ALSO_TYPES and after != "("):
        return None
    if scope == "::":
        return f"calls ::{name}"
    if scope == "std":
        return f"calls std::{name}"
    if scope is None and name in UNMISTAKABLE and after == "(":
        before = tokens[at - 1] if at else ""
        declares = (is_word(before) and before not in CALL_AFTER) or before in ("*", "&", ">")
        return None if declares else f"calls {name}"
    return None


def faults_in(text: str) -> list[tuple[int, str]]:
    """Every fault of a file's text, as line number and text."""
    faults: list[tuple[int, str]] = []
    tokens: list[str] = []
    lines: list[int] = []
    source = text.split("\n")
    for number, code in enumerate(blank(text).split("\n"), 1):
        if code.lstrip().startswith("#"):
            include = INCLUDE.match(source[number - 1])
            if include:
                if include[1] in HEADERS:
                    faults.append((number, f"includes <{include[1]}>"))
                continue
        for token in TOKEN.findall(code):
            tokens.append(token)
            lines.append(number)
    for at, token in enumerate(tokens):
        fault = fault_at(tokens, at) if is_word(token) else None
        if fault:
            faults.append((lines[at], fault))
    return sorted(faults)


def in_seam(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in SEAM)


GOOD = [
    "int close();  virtual int accept4(int fd) = 0;",
    "auto r = backend_->accept4(fd); backend.close(fd); close(); this->read(p, n);",
    "int fault_backend::recvmmsg(int fd) { return inner_->recvmmsg(fd); }",
    "std::unique_ptr<poller> kqueue();  socket& socket(int);",
    '// errno and ::close(fd)\nauto s = "errno ::close(";  /* std::rand() */',
    'auto s = R"(errno ::close(3) )";  char c = \'"\'; int i = 10\'000\'000; auto t = "\\"errno";',
    "#include <cerrno>\n#include <sys/socket.h>\n#include <netinet/in.h>\nint e = -EAGAIN;",
    "using time_point = std::chrono::steady_clock::time_point; auto t = now(); auto u = loop.now();",
    "task<> getaddrinfo(std::string_view host); auto t = getaddrinfo(\"x\"); auto r = anyio::raise(error);",
    "struct ::stat* s; ::sockaddr_in a; std::mt19937_64 g(seed); std::signal_t x;",
    "void f(); int x = detail::time(3); std::chrono::seconds time(5);",
]

BAD = [
    ("int e = errno;", "errno"),
    ("if (::close(fd) < 0) {}", "::close"),
    ("return ::read(fd, p, n);", "::read"),
    ("auto f = &::close;", "::close"),
    ("int n = ::\n  recv(fd, p, 1, 0);", "::recv"),
    ("::stat(p, &s);", "::stat"),
    ("int r = accept4(fd, a, n, 0);", "accept4"),
    ("return epoll_wait(fd, e, 1, 0);", "epoll_wait"),
    ("clock_gettime(CLOCK_MONOTONIC, &t);", "clock_gettime"),
    ("auto t = std::chrono::steady_clock::now();", "steady_clock::now"),
    ("using c = std::chrono::system_clock; auto t = my_clock::now();", "my_clock::now"),
    ("std::random_device d;", "random"),
    ("int r = std::rand();", "std::rand"),
    ("auto t = std::time(nullptr);", "std::time"),
    ("std::this_thread::sleep_for(1ms);", "sleep_for"),
    ("auto v = std::getenv(\"HOME\");", "std::getenv"),
    ("#define ANYIO_NET_CLOSE(fd) ::close(fd)", "::close"),
    ("#include <unistd.h>", "unistd.h"),
    ("#  include <sys/epoll.h>", "sys/epoll.h"),
    ("#if 1\n#include <csignal>\n#endif", "csignal"),
    ("co_return getpid();", "getpid"),
    ("int a = 1'000; int b = errno; char c = '\\'';", "errno"),
]


def self_test() -> int:
    """Runs the check on snippets that it must accept and snippets that it must reject."""
    wrong = [f"rejected, but is correct: {text!r}: {faults_in(text)}" for text in GOOD if faults_in(text)]
    for text, expected in BAD:
        if not any(expected in fault for _, fault in faults_in(text)):
            wrong.append(f"accepted, but {expected} is wrong: {text!r}: {faults_in(text)}")
    if not in_seam("system/epoll_backend.ipp") or in_seam("simulation/fault_backend.hpp") or in_seam("system/backend.hpp"):
        wrong.append("SEAM matches the wrong files")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"check_seam: {len(GOOD) + len(BAD)} snippets, {len(wrong)} wrong")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="check the check")
    parser.add_argument("files", nargs="*", type=Path, help="instead of all of src/")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    src = Path(__file__).resolve().parents[2] / "src"
    files = options.files or sorted(src.rglob("*.[hi]pp"))
    count = 0
    for path in files:
        if path.is_relative_to(src) and in_seam(path.relative_to(src).as_posix()):
            continue
        for number, fault in faults_in(path.read_text(encoding="utf-8")):
            shown = path.relative_to(src.parent) if path.is_relative_to(src.parent) else path
            print(f"{shown}:{number}: {fault} outside the seam: go through `backend`", file=sys.stderr)
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
