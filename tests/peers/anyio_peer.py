#!/usr/bin/python3
"""AnyIO's end: the programs of its guide and some more: anyio_peer.py FUNCTION [HOST] [PORT | PATH]"""

import os
import sys
from pathlib import Path

import anyio

# What a UNIX socket takes whole or not at all: of a larger one that it takes a part of, AnyIO 3.6.2 sends
# the beginning again.
CHUNK = 32768


async def tcp_client(host, port):
    async with await anyio.connect_tcp(host, int(port)) as client:
        await client.send(b"Client\n")
        show(await client.receive())


async def tcp_server(port):
    listener = await anyio.create_tcp_listener(local_port=int(port))
    await listener.serve(greet)


async def tcp_echo(port):
    listener = await anyio.create_tcp_listener(local_port=int(port))
    await listener.serve(echo)


async def unix_client(path):
    async with await anyio.connect_unix(path) as client:
        await client.send(b"Client\n")
        show(await client.receive(1024))


async def unix_server(path):
    listener = await anyio.create_unix_listener(path)
    await listener.serve(greet)


async def unix_echo(path):
    listener = await anyio.create_unix_listener(path)
    await listener.serve(echo)


async def fd_client(path):
    async with await anyio.connect_unix(path) as client:
        message, fds = await client.receive_fds(1024, 1)
        show(message + b"\n")
        with os.fdopen(fds[0], "rb") as file:
            show(file.read())


async def fd_server(path, file_name):
    async def handle(client):
        async with client:
            with Path(file_name).open() as file:
                await client.send_fds(b"this message is ignored", [file])

    listener = await anyio.create_unix_listener(path)
    await listener.serve(handle)


async def udp_hello(port):
    async with await anyio.create_udp_socket(local_host="127.0.0.1", local_port=int(port)) as udp:
        async for packet, (host, port) in udp:
            show(packet)
            await udp.sendto(b"Hello, " + packet, host, port)


async def udp_client(host, port):
    async with await anyio.create_connected_udp_socket(remote_host=host, remote_port=int(port)) as udp:
        await udp.send(b"AnyIO")
        show(await udp.receive())


async def transfer_tcp(host, port):
    async with await anyio.connect_tcp(host, int(port)) as client:
        await transfer(client)


async def transfer_unix(path):
    async with await anyio.connect_unix(path) as client:
        await transfer(client)


async def greet(client):
    async with client:
        name = await client.receive(1024)
        await client.send(b"Hello, %s\n" % name)


async def echo(client):
    async with client:
        try:
            while True:
                await client.send(await client.receive(CHUNK))
        except anyio.EndOfStream:
            pass


async def transfer(client):
    """Sends standard input, half-closes, and prints what comes back."""

    async def send():
        while data := sys.stdin.buffer.read(CHUNK):
            await client.send(data)
        await client.send_eof()

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        async for data in client:
            show(data)


def show(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


anyio.run(globals()[sys.argv[1]], *sys.argv[2:])
