# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The daemon's side of userspace/common/wire.h, by itself: frames to a sluice-writer and their answers."""
import json
import pathlib
import re
import socket
import struct

HEADER = struct.Struct("<IHHQII")
ADMIT = struct.Struct("<QQQQQIIII")
ACK = struct.Struct("<QQQII")
MAGIC = 0x57434C53
HELLO, ADMITS, QUERY, ERROR = 1, 2, 3, 255
STORED, KNOWN, REFUSED = 1, 2, 3
TIMEOUT_S = 20
_text = (pathlib.Path(__file__).resolve().parents[2] / "userspace" / "common" / "wire.h").read_text(encoding="utf-8")
VERSION = int(re.search(r"#define WIRE_VERSION (\d+)", _text).group(1))


class Refused(Exception):
    """A WIRE_ERROR: nothing of the question was stored."""

    def __init__(self, answer):
        super().__init__(f"{answer['code']}: {answer['detail']}")
        self.code = answer["code"]


class Connection:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.ids = 0
        try:
            self.sock.connect(str(path))
        except BaseException:
            self.sock.close()
            raise

    def close(self):
        self.sock.close()

    def _receive(self, count):
        data = b""
        while len(data) < count:
            got = self.sock.recv(count - len(data))
            if not got:
                raise ConnectionResetError("the writer hung up")
            data += got
        return data

    def exchange(self, kind, body):
        self.ids += 1
        self.sock.sendall(HEADER.pack(MAGIC, VERSION, kind, self.ids, len(body), 0) + body)
        magic, version, answer_kind, number, length, _ = HEADER.unpack(self._receive(HEADER.size))
        assert (magic, version, number) == (MAGIC, VERSION, self.ids), "not the answer to this frame"
        answer = self._receive(length)
        if answer_kind == ERROR:
            raise Refused(json.loads(answer))
        assert answer_kind == kind
        return answer

    def hello(self):
        return json.loads(self.exchange(HELLO, json.dumps({"version": VERSION, "node": 1}).encode()))

    def ask(self, **question):
        return json.loads(self.exchange(QUERY, json.dumps(question).encode()))

    def admit(self, records):
        """`records`: [(serial, buyer, sale, quantity, hold_seconds, admitted_ns)]. Returns [(serial, seq, committed_ns, status)]."""
        body = b"".join(ADMIT.pack(serial, buyer, 0, 0xFFFF0A480001, admitted, sale, 0, quantity, hold)
                        for serial, buyer, sale, quantity, hold, admitted in records)
        return [ack[:4] for ack in ACK.iter_unpack(self.exchange(ADMITS, body))]
