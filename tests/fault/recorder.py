# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What clients write down while a sale runs: one JSON object a line, to be judged by checker.py afterwards.

Used by tests/e2e/world.py for what goes through its helpers, and by load.py. Nothing is interpreted here: a line says what was sent, what
came back, and when, by two clocks ([monotonic, wall], ns). The monotonic one orders what the test itself saw, the wall clock is the one
that the ledger's times are compared with.

    {"what":"order", "method":"POST|GET|DELETE", "token", "sent", "received", "status", "code", "body", "bytes", "complete", "error"}
    {"what":"control", "method", "path", "request", "sent", "received", "status", "body"}
    {"what":"note", "event":"down|up|gate_gone|clock|clock_apart|alone|fleet", "part", "at", …}
    {"what":"rest", "at", "upto", "sales":{"id":{"free"}}, "in_flight", "refused"}

`upto` says how far the ledger had got by then, by its positions (ledger.py: read_books). Its times would not do: a row has the time at which the writer
began to write it, and is to be seen some time later.

`status` is null where no complete answer came: `bytes` says how much of one did, `error` why it ended. `alone` promises that no order is
asked for but by clients that write here; `clock_apart` says that the shop's clock is ahead of ours by `offset` s for good; `fleet` that its stock is the
fleet's (fleet_checker.py).
"""
import json
import threading
import time


def clocks():
    return [time.monotonic_ns(), time.time_ns()]


class Recorder:
    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._file = open(path, "a", encoding="utf-8", buffering=1 << 16)

    def _write(self, record):
        line = json.dumps(record, separators=(",", ":"))
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")

    def order(self, method, token, sent, status, body, size, error=None):
        """An answer to a buyer (`status` None: none, or not all of one). `body` is its JSON, or None."""
        code = body.get("code") if isinstance(body, dict) and status and status >= 400 else None
        self._write({"what": "order", "method": method, "token": token, "sent": sent, "received": clocks(), "status": status, "code": code,
                     "body": body, "bytes": size, "complete": status is not None, "error": error})

    def control(self, method, path, request, sent, status, body):
        self._write({"what": "control", "method": method, "path": path, "request": request, "sent": sent, "received": clocks(),
                     "status": status, "body": body})

    def note(self, event, **fields):
        self._write({"what": "note", "event": event, "at": clocks(), **fields})

    def rest(self, upto, sales, in_flight, refused):
        """The gate's own words, when nothing is under way any more and the ledger has got as far as `upto`."""
        self._write({"what": "rest", "at": clocks(), "upto": upto, "sales": sales, "in_flight": in_flight, "refused": refused})

    def flush(self):
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def close(self):
        with self._lock:
            self._file.close()


def json_or_none(raw):
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None
