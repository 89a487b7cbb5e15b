"""gdb for programs with anyio_net.hpp: values in plain form, and what the tasks of a loop wait for.

    (gdb) source tools/debug/anyio_net_gdb.py
    (gdb) anyio tasks             the tasks of this thread's loop as a tree: who waits for whom, and where
    (gdb) anyio tasks LOOP        of another loop: an expression, such as a variable's name
    (gdb) print endpoint          127.0.0.1:80

It works with a process and with a core file, since it calls nothing in the program. The program needs its symbols
(no `strip`), and -g. A suspended coroutine keeps the number of the place where it suspended, and its code stores that
number there: so the line is known on x86-64 and AArch64, unless optimisation has merged those stores, as that of g++
does. Then, and elsewhere, the beginning of the coroutine is shown instead, with "(the coroutine)".
"""

import ipaddress
import re

import gdb

INSIDE = r"^anyio::(?:v\w+::)?"  # the inline namespace is named for what changes layouts


# ---- types and memory


def word(address):
    """The pointer-sized word at an address."""
    size = gdb.lookup_type("void").pointer().sizeof
    return int.from_bytes(gdb.selected_inferior().read_memory(address, size).tobytes(), byte_order())


def byte_order():
    return "big" if "big" in gdb.execute("show endian", to_string=True) else "little"


def pointer_size():
    return gdb.lookup_type("void").pointer().sizeof


def symbol_at(address):
    """The demangled name of the object or function at an address; empty if there is none."""
    text = gdb.execute(f"info symbol {address:#x}", to_string=True)
    match = re.match(r"(.*?)(?: \+ \d+)? in section ", text)
    return match.group(1) if match else ""


def inside(name):
    """A type of the library."""
    for abi in ("", "v1::", "v1_no_exceptions::", "v1_no_threads::", "v1_no_exceptions_no_threads::"):
        try:
            return gdb.lookup_type(f"anyio::{abi}{name}")
        except gdb.error:
            pass
    found = re.search(r"anyio::(\w+)::detail::node\b", gdb.execute("info types anyio::.*::detail::node$", to_string=True))
    if found:
        return gdb.lookup_type(f"anyio::{found.group(1)}::{name}")
    raise gdb.GdbError("the program has no debug information about anyio_net.hpp: compile it with -g")


def offset_of(kind, name):
    """The offset of a member or a base class, the bases' members included; None if there is none."""
    for field in kind.fields():
        if not hasattr(field, "bitpos"):
            continue
        if field.name == name or (field.is_base_class and field.type.name and field.type.name.endswith("::" + name)):
            return field.bitpos // 8
        if field.is_base_class:
            inner = offset_of(field.type.strip_typedefs(), name)
            if inner is not None:
                return field.bitpos // 8 + inner
    return None


# ---- pretty printers


def text_of(value):
    """A C string, or what can be read of it."""
    try:
        return value.string(errors="replace")
    except (gdb.error, UnicodeError):
        return "?"


def enumerator(value):
    return str(value).rsplit("::", 1)[-1]


class ErrorPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        code = enumerator(self.value["code_"])
        operation = text_of(self.value["operation_"])
        number = int(self.value["os_error_"])
        words = (operation + ": " if operation else "") + code
        reason = self.value["reason_"]
        if int(reason) != 0:
            words += ", " + text_of(reason)
        return words + (f" (errno {number})" if number else "")


class ResultPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        state = enumerator(self.value["state_"])
        if state == "error":
            return "error " + ErrorPrinter(self.value["error_"]).to_string()
        return {"value": "value", "foreign": "a foreign exception"}.get(state, "nothing")

    def children(self):
        if enumerator(self.value["state_"]) == "value" and "monostate" not in str(self.value["value_"].type):
            yield "value", self.value["value_"]


def address_text(value):
    data = bytes(int(value["bytes_"][i]) & 255 for i in range(16))
    if not bool(value["is_v6_"]):
        return str(ipaddress.IPv4Address(data[:4]))
    scope = int(value["scope_"])
    return str(ipaddress.IPv6Address(data)) + (f"%{scope}" if scope else "")


def endpoint_text(value):
    address = address_text(value["address"])
    return (f"[{address}]" if ":" in address else address) + f":{int(value['port'])}"


class AddressPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return address_text(self.value)


class EndpointPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return endpoint_text(self.value)


class BufferPrinter:
    """const_buffer and mutable_buffer: the size, and the first bytes."""

    most = 64

    def __init__(self, value):
        self.value = value

    def to_string(self):
        size = int(self.value["size_"])
        words = f"{size} bytes"
        if size == 0:
            return words
        try:
            data = gdb.selected_inferior().read_memory(int(self.value["data_"]), min(size, self.most)).tobytes()
        except gdb.MemoryError:
            return words + ", not readable"
        shown = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in data)
        return f'{words} "{shown}"' + ("..." if size > self.most else "")


def resource_text(pointer):
    """The descriptor of a resource, and the ends of a connection."""
    if int(pointer) == 0:
        return "closed"
    try:
        whole = pointer.dereference().cast(pointer.dynamic_type.target())
    except (gdb.error, RuntimeError):
        whole = pointer.dereference()
    words = "open" if bool(whole["open_"]) else "closed"
    names = {name for name in ("registration_", "local", "remote", "inner_", "sockets")
             if offset_of(whole.type.strip_typedefs(), name) is not None}
    if "registration_" in names and words == "open":
        words = f"fd {int(whole['registration_']['fd'])}"
    if "sockets" in names and words == "open" and offset_of(whole["sockets"].type.strip_typedefs(), "_M_impl") is not None:
        first = whole["sockets"]["_M_impl"]["_M_start"].dereference()  # libstdc++
        words = f"fd {int(first['registration']['fd'])}"
        if int(first["local"]["port"]) != 0:
            words += f", at {endpoint_text(first['local'])}"
    if {"local", "remote"} <= names and "ip_endpoint" in str(whole["local"].type):
        words += f", {endpoint_text(whole['local'])} to {endpoint_text(whole['remote'])}"
    elif "inner_" in names and "ref" in str(whole["inner_"].type):
        words += ", over " + resource_text(whole["inner_"]["pointer_"])
    return words


class StreamPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return resource_text(self.value["resource_"]["pointer_"])


class TaskPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        promise = int(self.value["promise_"])
        if promise == 0:
            return "no coroutine"
        return Coroutine(promise).text()


PRINTERS = [
    (r"error$", ErrorPrinter),
    (r"result<.*>$", ResultPrinter),
    (r"ip_address$", AddressPrinter),
    (r"ip_endpoint$", EndpointPrinter),
    (r"(const|mutable)_buffer$", BufferPrinter),
    (r"(byte|socket|tcp|unix|fd|memory|buffered|tls|descriptor)_stream$", StreamPrinter),
    (r"(tcp|unix)_listener$", StreamPrinter),
    (r"(udp|connected_udp|unix_datagram|connected_unix_datagram)_socket$", StreamPrinter),
    (r"task<.*>$", TaskPrinter),
]


def printer_of(value):
    name = value.type.unqualified().strip_typedefs().name
    if name is None:
        return None
    for pattern, printer in PRINTERS:
        if re.match(INSIDE + pattern, name):
            return printer(value)
    return None


# ---- coroutines


class Coroutine:
    """A coroutine of the library, by the address of its promise."""

    lines = {}  # where the code of a coroutine stores the numbers of its suspension points

    def __init__(self, promise):
        kind = inside("detail::promise_base")
        value = gdb.Value(promise).cast(kind.pointer()).dereference()
        self.frame = int(value["handle"]["_M_fr_ptr"] if has_field(value["handle"], "_M_fr_ptr") else value["handle"]["__handle_"])
        self.resume = word(self.frame)

    def text(self):
        if self.resume == 0:
            return "at its end"
        name = re.sub(r"\s*\[clone .*?\]|\(\.\w+\)", "", symbol_at(self.resume))
        of_frame = re.match(r"(.*?)\((\1.*)::_Z\w*\.Frame ?\*\)$", name)  # g++: the frame is the only argument
        name = of_frame.group(2) if of_frame else name
        if "detail::call_task<" in name:
            return "of a callable"
        return f"{name or hex(self.resume)} at {self.place()}"

    def place(self):
        function = gdb.find_pc_line(self.resume)
        file = function.symtab.filename if function.symtab else "?"
        where = self.suspended_at()
        if where is None:
            return f"{file}:{function.line} (the coroutine)" if function.symtab else file
        return f"{where[0]}:{where[1]}"

    def suspended_at(self):
        """The file and line of the co_await that it waits in."""
        found = self.number()
        if found is None:
            return None
        offset, number = found
        key = (self.resume, offset)
        if key not in self.lines:
            self.lines[key] = stores_in(self.resume, offset)
        return self.lines[key].get(number)

    def number(self):
        """Where the frame keeps the number of the suspension point, and the number."""
        try:
            block = gdb.block_for_pc(self.resume)
        except RuntimeError:
            return None
        while block is not None:
            for symbol in block:
                if symbol.name in ("frame_ptr", "__coro_frame"):
                    kind = symbol.type.strip_typedefs()
                    kind = kind.target() if kind.code == gdb.TYPE_CODE_PTR else kind
                    for field in kind.strip_typedefs().fields():
                        if field.name in ("_Coro_resume_index", "__coro_index"):
                            offset = field.bitpos // 8
                            size = max(1, field.type.sizeof)
                            data = gdb.selected_inferior().read_memory(self.frame + offset, size).tobytes()
                            return offset, int.from_bytes(data, byte_order()) & ((1 << (field.bitsize or 64)) - 1)
            if block.function is not None:
                break
            block = block.superblock
        return None


def has_field(value, name):
    return any(field.name == name for field in value.type.strip_typedefs().fields())


def file_of(line):
    return line.symtab.filename if line.symtab is not None else None


def stores_in(function, offset):
    """{number: (file, line)} of the places where a coroutine stores a number at this offset of its frame."""
    block = gdb.block_for_pc(function)
    while block.function is None:
        block = block.superblock
    frame = gdb.selected_frame().architecture() if gdb.selected_thread() else gdb.selected_inferior().architecture()
    places = {}
    small = {}  # constants in registers, on AArch64
    instructions = frame.disassemble(block.start, block.end - 1)
    lines = [gdb.find_pc_line(instruction["addr"]) for instruction in instructions]
    # g++ gives what it adds to a co_await the line of the closing brace, here and there.
    file = file_of(gdb.find_pc_line(function))
    closing = max((line.line for line in lines if file_of(line) == file), default=0)
    own = None  # the last line before that is none of those
    for instruction, line in zip(instructions, lines):
        code = instruction["asm"]
        if file_of(line) == file and line.line not in (0, block.function.line, closing):
            own = line
        number = None
        match = re.match(r"mov[bwl]?\s+\$0x([0-9a-f]+),0x([0-9a-f]+)\(%r\w+\)", code)
        if match and int(match.group(2), 16) == offset:
            number = int(match.group(1), 16)
        match = re.match(r"mov\s+(w\d+), #0x([0-9a-f]+)", code)
        if match:
            small[match.group(1)] = int(match.group(2), 16)
        match = re.match(r"str[bh]\s+(w\d+), \[x\d+, #(\d+)\]", code)
        if match and int(match.group(2)) == offset:
            number = 0 if match.group(1) == "wzr" else small.get(match.group(1))
        if number is None:
            continue
        if own is not None and line.line == closing:
            line = own
        if line.symtab is not None and line.line != 0:
            places.setdefault(number, (line.symtab.filename, line.line))
    return places


# ---- who waits for whom


class Waiting:
    """Nodes of a loop, by their addresses, and who waits for each."""

    def __init__(self):
        self.node = inside("detail::node")
        self.slot = -(-self.node.sizeof // pointer_size()) * pointer_size()  # of an operation: its waiter
        self.promise = inside("detail::promise_base")
        self.waiter = offset_of(self.promise, "waiter")
        self.child = inside("detail::group_child")

    def face(self, address):
        """The name of the table of functions with which a node began; empty if it is idle."""
        how = word(address + offset_of(self.node, "how"))
        return symbol_at(how) if how else ""

    def owner(self, address):
        """The node that waits for this one; 0 if there is none, or if it is not known."""
        face = self.face(address)
        if face.endswith("::face_of_child"):
            return self.host(address)
        if "::awaiting_face<" in face:
            return word(address + self.slot + pointer_size())
        if re.search(r"task<.*>::awaiter<.*>::face$", face):
            return word(address + self.waiter + pointer_size())
        if "callback_face<" in face:
            where = self.waiter if is_task(face) else self.slot
            return self.through_callback(first_argument(face.split("callback_face<", 1)[1]), address + where)
        return 0

    def through_callback(self, callback, place):
        """Callables of the library begin with a pointer to the pending operation, or to a part of it."""
        if "part_of<" in callback and "operation_child<" in callback:
            return word(place) + offset_of(self.child, "node")
        if not callback.startswith("anyio::"):
            return 0  # a user's
        try:
            try:
                first = gdb.lookup_type(callback).fields()[0].type
                whole = first.target().strip_typedefs() if first.code == gdb.TYPE_CODE_PTR else None
            except gdb.error:  # gdb writes some names in another way: the operation is the first argument then
                whole = gdb.lookup_type(first_argument(callback.split("<", 1)[1]))
            base = offset_of(whole, "node") if whole is not None else None
            if base is not None:
                return word(place) + base
            server = offset_of(whole, "server_") if whole is not None else None
            return word(word(place) + server) if server is not None else 0
        except (gdb.error, IndexError, RuntimeError):
            return 0

    def host(self, address):
        child = address - offset_of(self.child, "node")
        group = gdb.Value(word(child + offset_of(self.child, "group_"))).cast(inside("task_group").pointer()).dereference()
        sink = group["sink_"]
        if int(sink) != 0:
            try:
                serving = sink.cast(sink.dynamic_type).dereference()
                return int(serving["server_"])
            except (gdb.error, RuntimeError):
                return 0
        linked = int(group["place_"]["next"]) != 0
        return int(group["host_"]) if linked else 0

    def text(self, address):
        face = self.face(address)
        if face.endswith("::face_of_child"):
            return "child of a group"
        if is_task(face):
            return "task " + Coroutine(address).text()
        match = re.search(r"operation<(?:anyio::(?:v\w+::)?)?(?:detail::)?(.*)>::(?:awaiting|callback)_face<", face)
        if match:
            name = re.sub(r"(_operation)?(<.*)?$", "", first_argument(match.group(1)))
            return name + self.descriptor(address, first_argument(match.group(1)))
        return re.sub(INSIDE + r"(detail::)?", "", face) or "idle"

    def descriptor(self, address, derived):
        """The descriptor of an operation that belongs to a resource."""
        for name in (derived, "detail::" + derived):
            try:
                kind = inside(name)
                resource = gdb.Value(address).cast(kind.pointer()).dereference()["resource_"]["pointer_"]
                return f" ({resource_text(resource)})"
            except (gdb.error, gdb.GdbError):
                continue
        return ""


def is_task(face):
    return re.match(INSIDE + r"task<", face) is not None


def first_argument(arguments):
    """The first of template arguments, and nothing behind it."""
    depth = 0
    for i, c in enumerate(arguments):
        depth += (c in "<(") - (c in ">)")
        if (c == "," and depth == 0) or depth < 0:
            return arguments[:i]
    return arguments


def nodes_of(core):
    for name in ("round_", "ready_", "parked_"):
        head = core[name]
        at = int(head["next"])
        while at != int(head.address):
            yield at
            at = word(at + pointer_size())
    yield from nodes_at_resources(core["resources_"])


def nodes_at_resources(head):
    """The nodes that wait as readers and writers, and are in no list."""
    at = int(head["next"])
    while at != int(head.address):
        resource = gdb.Value(at).cast(inside("detail::resource_place").pointer()).cast(inside("detail::resource").pointer())
        for side in range(2):
            node = resource["waiting_"][side]
            if int(node) != 0 and int(node["core"]) != 0 and int(node["next"]) == 0:
                yield int(node)
        at = word(at + pointer_size())


class AnyioCommand(gdb.Command):
    """The pending operations of a program with anyio_net.hpp."""

    def __init__(self):
        super().__init__("anyio", gdb.COMMAND_DATA, prefix=True)


class AnyioTasks(gdb.Command):
    """anyio tasks [LOOP]: the tasks of a loop as a tree, with the lines where they are suspended.

    Without LOOP: of the current loop of the selected thread."""

    def __init__(self):
        super().__init__("anyio tasks", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        core = self.core_of(argument)
        waiting = Waiting()
        waits_for = {}  # whoever waits: for what
        seen = set()
        roots = []
        for node in nodes_of(core):
            while node and node not in seen:
                seen.add(node)
                owner = waiting.owner(node)
                if owner and waiting.face(owner):
                    waits_for.setdefault(owner, []).append(node)
                else:
                    roots.append(node)
                    break
                node = owner
        for root in roots:
            self.show(waiting, waits_for, root, 0)
        if not roots:
            print("nothing waits")

    def show(self, waiting, waits_for, node, depth):
        print("  " * depth + waiting.text(node))
        for inner in waits_for.get(node, []):
            self.show(waiting, waits_for, inner, depth + 1)

    @staticmethod
    def core_of(argument):
        if argument:
            loop = gdb.parse_and_eval(argument)
            if loop.type.strip_typedefs().code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF):
                loop = loop.referenced_value()
            return loop["core_"]["pointer_"].dereference()
        latest = gdb.parse_and_eval(f"'{inside('detail::loop_core').name}::latest'")
        if int(latest) == 0:
            raise gdb.GdbError("this thread has no loop: `anyio tasks LOOP` takes one")
        return latest.dereference()["core"].dereference()


gdb.pretty_printers.append(printer_of)
AnyioCommand()
AnyioTasks()
