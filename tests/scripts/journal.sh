#!/usr/bin/env bash
# Entries for the journal, in Python: short ones in datagrams, and long ones in sealed files in memory.
source "$(dirname "$0")/lib.bash"
need "$python"
[[ $(uname) == Linux ]] || skip "there is no journal here"

"$examples/journal" --help | grep -q '^usage: journal'
for wrong in '--path' 'MESSAGE' 'message=x' '_PID=1' '=x' '--what=x'; do
  status=0
  "$examples/journal" "$wrong" </dev/null >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
status=0
"$examples/journal" --path "$work/none" MESSAGE=x 2>"$work/err" || status=$?
((status == 1)) && grep -q 'ENOENT' "$work/err" || fail "no journal: exit status $status"

"$python" - "$examples/journal" "$work/socket" <<'PYTHON'
import fcntl, mmap, os, socket, struct, subprocess, sys

program, path = sys.argv[1:]
GET_SEALS, ALL_SEALS = 1034, 0xF  # F_GET_SEALS; seal, shrink, grow, write

journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.settimeout(20)
journal.bind(path)

def fields_of(entry):
    fields = {}
    while entry:
        line, entry = entry.split(b"\n", 1)
        if b"=" in line:
            name, value = line.split(b"=", 1)
        else:
            name, (size,) = line, struct.unpack("<Q", entry[:8])
            value, entry = entry[8:8 + size], entry[8 + size:]
            assert entry[:1] == b"\n"
            entry = entry[1:]
        fields[name.decode()] = value
    return fields

def logged():
    """One entry, and whether it came in a file."""
    data, fds, flags, _ = socket.recv_fds(journal, 1 << 20, 4)
    assert flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) == 0
    if not fds:
        return fields_of(data), False
    (fd,) = fds
    assert data == b""
    assert fcntl.fcntl(fd, GET_SEALS) == ALL_SEALS
    with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as content:
        entry = content[:]
    os.close(fd)
    return fields_of(entry), True

def log(*words, given=b""):
    subprocess.run([program, "--path", path, *words], input=given, check=True, timeout=20)
    return logged()

assert log("PRIORITY=4", "MESSAGE=all is = well") == ({"PRIORITY": b"4", "MESSAGE": b"all is = well"}, False)
lines = b"first\n\nlast, with a \0 and \xff\n"
assert log("CODE_LINE=7", given=lines) == ({"CODE_LINE": b"7", "MESSAGE": lines}, False)
assert log(given=b"") == ({"MESSAGE": b""}, False)
large = os.urandom(5 << 20)
assert log("PRIORITY=6", given=large) == ({"PRIORITY": b"6", "MESSAGE": large}, True)
PYTHON
