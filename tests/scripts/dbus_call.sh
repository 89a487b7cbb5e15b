#!/usr/bin/env bash
# The D-Bus client with a private dbus-daemon, and with a service in Python that answers with descriptors.
source "$(dirname "$0")/lib.bash"
need "$python" dbus-daemon

"$examples/dbus_call" --help | grep -q '^usage: dbus_call'
for wrong in '' 'a' 'a b' 'a b c' 'a b c.d e'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/dbus_call" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

cat >"$work/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=$work/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
XML
start daemon dbus-daemon --config-file="$work/bus.conf" --nofork --nopidfile
eventually unix_listens "$work/bus"
export DBUS_SESSION_BUS_ADDRESS="unix:path=$work/bus,guid=0123"

"$examples/dbus_call" org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus.ListNames >"$work/names"
grep -qx 'org.freedesktop.DBus' "$work/names"
grep -qx ':1\.[0-9]*' "$work/names"
[[ $("$examples/dbus_call" org.freedesktop.DBus / org.freedesktop.DBus.GetId) =~ ^[0-9a-f]{32}$ ]]
! "$examples/dbus_call" org.freedesktop.DBus / org.freedesktop.DBus.Nonsense 2>"$work/unknown"
grep -q 'UnknownMethod' "$work/unknown"
! "$examples/dbus_call" nobody.there / a.b.C 2>"$work/nobody"
grep -q 'ServiceUnknown' "$work/nobody"
! DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere "$examples/dbus_call" a / b.c 2>"$work/nowhere"
grep -q 'connect.*ENOENT' "$work/nowhere"

# A service with three methods: two files, a large answer with a file behind it, none.
cat >"$work/service.py" <<'PYTHON'
import array, os, socket, struct, sys, tempfile

bus = socket.socket(socket.AF_UNIX)
bus.connect(sys.argv[1])
serial = 0

def pad(data, n):
    return data + bytes(-len(data) % n)

def text(s):
    return struct.pack("<I", len(s)) + s.encode() + b"\0"

def send(kind, fields, signature="", body=b"", files=()):
    global serial
    serial += 1
    if signature:
        fields.append((8, "g", bytes([len(signature)]) + signature.encode() + b"\0"))
    if files:
        fields.append((9, "u", struct.pack("<I", len(files))))
    head = b""
    for code, sort, value in fields:
        head = pad(head, 8) + bytes([code, 1]) + sort.encode() + b"\0" + value
    data = pad(struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, len(head)) + head, 8) + body
    if files:
        fds = array.array("i", [f.fileno() for f in files])
        sent = bus.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        data = data[sent:]
    bus.sendall(data)

def receive():
    def exactly(n):
        data = b""
        while len(data) < n:
            part = bus.recv(n - len(data))
            if not part:
                sys.exit()
            data += part
        return data
    order, kind, _, _, size, number, length = struct.unpack("<cBBBIII", exactly(16))
    fields = exactly(length + -length % 8)
    exactly(size)
    return kind, number, fields

def call(member, signature="", body=b""):
    send(1, [(1, "o", text("/org/freedesktop/DBus")), (3, "s", text(member)),
             (2, "s", text("org.freedesktop.DBus")), (6, "s", text("org.freedesktop.DBus"))], signature, body)

def file(content):
    f = tempfile.TemporaryFile()
    f.write(content)
    f.seek(0)
    return f

bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
assert bus.recv(1000).startswith(b"OK ")
bus.sendall(b"NEGOTIATE_UNIX_FD\r\n")
assert bus.recv(1000) == b"AGREE_UNIX_FD\r\n"
bus.sendall(b"BEGIN\r\n")
call("Hello")
call("RequestName", "su", pad(text("test.files"), 4) + struct.pack("<I", 0))
print("ready", flush=True)
while True:
    kind, number, fields = receive()
    if kind != 1:
        continue
    at = fields.index(b"\7\1s\0") + 4  # the sender, who gets the reply
    size = struct.unpack_from("<I", fields, at)[0]
    sender = fields[at + 4:at + 4 + size].decode()
    reply = [(5, "u", struct.pack("<I", number)), (6, "s", text(sender))]
    if b"Two\0" in fields:
        send(2, reply, "hsh", pad(struct.pack("<I", 0) + text("between"), 4) + struct.pack("<I", 1),
             [file(b"the first"), file(b"the second")])
    elif b"Large\0" in fields:
        send(2, reply, "sh", pad(text("x" * 300000), 4) + struct.pack("<I", 0), [file(b"behind it")])
    else:
        send(2, reply, "ub", struct.pack("<II", 7, 1))
PYTHON
start service "$python" "$work/service.py" "$work/bus"
eventually grep -qs ready "$work/service"
export DBUS_SESSION_BUS_ADDRESS="unix:path=$work/bus"
eventually "$examples/dbus_call" test.files / test.files.Nothing >"$work/out"
expect "$work/out" '7\n1\n'
expect <("$examples/dbus_call" test.files / test.files.Two) 'the first\nbetween\nthe second\n'
"$examples/dbus_call" test.files / test.files.Large >"$work/large"
[[ $(head -n 1 "$work/large" | wc -c) == 300001 && $(tail -n 1 "$work/large") == 'behind it' ]] || fail "the large answer"
