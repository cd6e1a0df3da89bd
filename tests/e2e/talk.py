# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""HTTP as bytes: requests in whatever pieces a test wants, answers taken apart with nothing forgiven."""
import dataclasses
import fcntl
import json
import socket
import struct
import termios
import time

RECEIVE_TIMEOUT_S = 20


@dataclasses.dataclass
class Answer:
    version: str
    status: int
    title: str
    headers: list  # (name, value) in the order of the wire
    body: bytes
    raw: bytes = b""

    def header(self, name, default=None):
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, f"header {name} is there twice: {self.headers}"
        return found[0] if found else default

    def header_names(self):
        return [key.lower() for key, _ in self.headers]

    def json(self):
        return json.loads(self.body)

    def code(self):
        """`code` of a problem document, else None."""
        return self.json().get("code") if self.header("content-type") == "application/problem+json" else None

    def __str__(self):
        return f"{self.status} {self.title} {self.headers} {self.body!r}"


def split_head(raw):
    head, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        return None, raw
    lines = head.decode("ascii").split("\r\n")
    version, status, title = (lines[0].split(" ", 2) + [""])[:3]
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        assert colon and name and name == name.strip(), f"not a header line: {line!r}"
        headers.append((name, value.strip(" \t")))
    return Answer(version, int(status), title, headers, b"", raw), rest


def parse_answers(raw):
    """All the answers in `raw`, which must be nothing but complete answers with a Content-Length."""
    answers = []
    while raw:
        answer, rest = split_head(raw)
        assert answer, f"no complete head: {raw!r}"
        length = 0 if answer.status == 204 else int(answer.header("content-length"))
        assert len(rest) >= length, f"body is short of its Content-Length {length}: {rest!r}"
        answer.body, raw = rest[:length], rest[length:]
        answer.raw = answer.raw[:len(answer.raw) - len(raw)] if raw else answer.raw
        answers.append(answer)
    return answers


def request(method, target, headers=(), body=b"", host="shop.example", version="HTTP/1.1"):
    """The bytes of a request; `headers` are added to Host (and Content-Length where there is a body)."""
    lines = [f"{method} {target} {version}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Connection:
    """One TCP connection of a client."""

    def __init__(self, sock, peer, timeout=RECEIVE_TIMEOUT_S):
        self.sock = sock
        self.buffer = b""
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(peer)
        self.port = sock.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def send_in_pieces(self, data, sizes, pause=0.002):
        """Each piece is a segment of its own: it is only sent when the one before has been acknowledged."""
        at = 0
        for size in sizes:
            self.sock.sendall(data[at:at + size])
            at += size
            self.wait_acknowledged()
            time.sleep(pause)
        assert at >= len(data), "the sizes do not cover the data"

    def is_acknowledged(self):
        """Whether the peer has all that was sent."""
        return not struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]

    def wait_acknowledged(self):
        deadline = time.monotonic() + RECEIVE_TIMEOUT_S
        while not self.is_acknowledged():
            assert time.monotonic() < deadline, "the peer does not acknowledge"
            time.sleep(0.0005)

    def receive(self):
        """The next complete answer."""
        while True:
            answer, rest = split_head(self.buffer)
            if answer:
                length = 0 if answer.status == 204 else int(answer.header("content-length"))
                if len(rest) >= length:
                    answer.body = rest[:length]
                    answer.raw = self.buffer[:len(self.buffer) - len(rest) + length]
                    self.buffer = rest[length:]
                    return answer
            data = self.sock.recv(65536)
            assert data, f"connection ended inside an answer: {self.buffer!r}"
            self.buffer += data

    def receive_end(self):
        """What is left until the peer closes. A reset is an exception."""
        while True:
            data = self.sock.recv(65536)
            if not data:
                rest, self.buffer = self.buffer, b""
                return rest
            self.buffer += data

    def receive_only(self):
        """One answer, and then the end of the connection."""
        answer = self.receive()
        rest = self.receive_end()
        assert rest == b"", f"something after the answer: {rest!r}"
        return answer

    def ask(self, data):
        self.send(data)
        return self.receive()
