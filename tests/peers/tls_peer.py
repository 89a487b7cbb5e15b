#!/usr/bin/python3
"""The TLS end of AnyIO, and of Python's ssl: tls_peer.py FUNCTION ARGUMENT..."""

import http.server
import socket
import ssl
import sys
import threading

CHUNK = 65536


def client_context(ca, version=""):
    context = ssl.create_default_context(cafile=ca)
    # By default a connection that was cut looks like one that was closed.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def server_context(certificate, key, version=""):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.load_cert_chain(certificate, key)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def connect(port, ca, version=""):
    plain = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
    return client_context(ca, version).wrap_socket(
        plain, server_hostname="localhost", suppress_ragged_eofs=False
    )


def is_cut(error):
    """Whether the connection ended without a close_notify; Python's word for it depends on OpenSSL's version."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


def show(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


# ---- Python's ssl, which is not to be used by two threads at once ----------------------------------------


def ssl_client(port, ca, version):
    """Sends standard input piece by piece, prints what comes back, and exchanges close_notify."""
    with connect(port, ca, version) as client:
        while data := sys.stdin.buffer.read(CHUNK):
            client.sendall(data)
            missing = len(data)
            while missing:
                piece = client.recv(CHUNK)
                assert piece, "the server has closed"
                missing -= len(piece)
                show(piece)
        client.unwrap().close()


def half_close(port, ca):
    """Sends much and a close_notify before it reads anything; all must come back, and a close_notify."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(ca, "TLSv1_3").wrap_bio(incoming, outgoing, server_hostname="localhost")
    data = bytes(i * 7 % 251 for i in range(100_000))
    got = bytearray()
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as plain:

        def step(verb, *arguments):
            """One verb until it needs no more input; None if it is one that does not wait for any."""
            while True:
                try:
                    return verb(*arguments)
                except ssl.SSLWantReadError:
                    if verb == tls.unwrap:
                        return None
                    plain.sendall(outgoing.read())
                    piece = plain.recv(CHUNK)
                    incoming.write(piece) if piece else incoming.write_eof()
                except ssl.SSLZeroReturnError:
                    return b""  # their close_notify, behind ours
                finally:
                    plain.sendall(outgoing.read())

        step(tls.do_handshake)
        assert step(tls.write, data) == len(data)
        step(tls.unwrap)
        while piece := step(tls.read, CHUNK):
            got += piece
    assert got == data, f"{len(got)} bytes came back"


def ssl_echo(port, certificate, key, version):
    context = server_context(certificate, key, version)

    def echo(plain):
        with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as client:
            while data := client.recv(CHUNK):
                client.sendall(data)
            client.unwrap().close()

    with socket.create_server(("127.0.0.1", int(port))) as listener:
        while True:
            threading.Thread(target=echo, args=[listener.accept()[0]], daemon=True).start()


def ending(port, ca, how):
    """Says hello to a server that said "ready", and leaves: by TLS's rules, or not."""
    with connect(port, ca) as client:
        assert client.recv(CHUNK) == b"ready\n"
        client.sendall(b"hello")
        if how == "polite":
            client.unwrap().close()
        elif how == "unanswered":
            try:
                client.unwrap()
            except ssl.SSLError as error:
                assert is_cut(error), error
            else:
                raise AssertionError("there should have been no close_notify")
        elif how == "ragged":
            socket.socket.shutdown(client, socket.SHUT_WR)
            try:
                while client.recv(CHUNK):
                    pass
            except ssl.SSLError as error:
                assert is_cut(error), error
        else:
            assert how == "reset"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


# ---- HTTP: servers that answer in every way ---------------------------------------------------------------

BODY = bytes(i % 256 for i in range(300_000))


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        getattr(self, "get_" + self.path.strip("/"))()

    def head(self, status, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def get_length(self):
        self.send_response_only(103)
        self.end_headers()
        self.head(200, content_length=str(len(BODY)))
        self.wfile.write(BODY)

    def get_chunked(self):
        self.head(200, Transfer_Encoding="chunked")
        size = 1
        at = 0
        while at < len(BODY):
            piece = BODY[at : at + size]
            self.wfile.write(b"%x;extension=1\r\n%s\r\n" % (len(piece), piece))
            at += size
            size *= 3
        self.wfile.write(b"0\r\nTrailer: 1\r\n\r\n")

    def get_rest(self):
        self.head(200)
        self.wfile.write(BODY)
        self.connection.unwrap()

    def get_half_length(self):
        self.head(200, content_length=str(2 * len(BODY)))
        self.wfile.write(BODY)
        self.connection.unwrap()

    def get_half_rest(self):
        self.head(200)
        self.wfile.write(BODY)  # and no close_notify

    def get_half_chunk(self):
        self.head(200, Transfer_Encoding="chunked")
        self.wfile.write(b"100000\r\n" + BODY)
        self.connection.unwrap()

    def get_odd_chunk(self):
        self.head(200, Transfer_Encoding="chunked")
        self.wfile.write(b"0x10\r\n0123456789abcdef\r\n0\r\n\r\n")

    def get_odd_length(self):
        self.head(200, content_length="-1")

    def get_odd_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")

    def get_odd_interim(self):
        for _ in range(11):
            self.send_response_only(103)
            self.end_headers()
        self.get_length()

    def get_odd_trailers(self):
        self.head(200, Transfer_Encoding="chunked")
        self.wfile.write(b"2\r\nok\r\n0\r\n" + b"Trailer: 1\r\n" * 10000 + b"\r\n")

    def get_missing(self):
        self.head(404, content_length="0")

    def log_message(self, *arguments):
        pass


def http_server(port, certificate, key):
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Pages) as server:
        server.socket = server_context(certificate, key).wrap_socket(server.socket, server_side=True)
        server.serve_forever()


def http_body():
    show(BODY)


# ---- AnyIO ------------------------------------------------------------------------------------------------


def anyio_client(port, ca, version, how):
    """Sends standard input, prints meanwhile what comes back, and closes."""
    import anyio

    async def main():
        async with await anyio.connect_tcp(
            "127.0.0.1",
            int(port),
            tls=True,
            ssl_context=client_context(ca, version),
            tls_hostname="localhost",
            tls_standard_compatible=how == "standard",
        ) as client:
            data = sys.stdin.buffer.read()

            async def send():
                for at in range(0, len(data), CHUNK):
                    await client.send(data[at : at + CHUNK])

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                received = 0
                while received < len(data):
                    piece = await client.receive()
                    received += len(piece)
                    show(piece)

    anyio.run(main)


def anyio_server(port, certificate, key, version, how):
    import anyio
    from anyio.streams.tls import TLSListener

    async def echo(client):
        try:
            async with client:
                while True:
                    await client.send(await client.receive())
        except anyio.EndOfStream:
            pass

    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=int(port))
        context = server_context(certificate, key, version)
        await TLSListener(listener, context, standard_compatible=how == "standard").serve(echo)

    anyio.run(main)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
