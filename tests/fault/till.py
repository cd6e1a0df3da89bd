# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The shop's own backend during a fault test: confirms, cancels and refunds what the crowd has ordered, over the control API, while parts die.

One thread. It knows no more than a real one would: an answer that never came is asked for again, with the same idempotency key, which must not do
a thing twice. Every call goes into the World's history.
"""
import http.client
import random
import threading
import time

PAUSE_S = 0.004
PATIENCE_S = 3
AGAIN = 0.1  # how often a call that was answered is made once more
KEY_HEADER = "Idempotency-Key"


class Till:
    def __init__(self, world, crowd, seed):
        self.world, self.crowd = world, crowd
        self.random = random.Random(f"till {seed}")
        self.open_calls = []  # (path, body, key): not answered, or to be made again
        self.calls = 0
        self.failed = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="till")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)

    def _choose(self):
        """A call that makes sense for one of the latest orders, or one that does not."""
        order = self.random.choice(self.crowd.ordered[-200:])
        verb = self.random.choice(("confirm", "confirm", "confirm", "cancel", "refund"))
        body = {"restock": self.random.random() < 0.7} if verb == "refund" else None
        key = f"{verb}-{self.calls}" if self.random.random() < 0.7 else None
        return f"/v1/orders/{order['id']}/{verb}", body, key

    def _call(self, path, body, key):
        self.calls += 1
        try:
            reply = self.world.control("POST", path, body, headers={KEY_HEADER: key} if key else None, timeout=PATIENCE_S)
        except (OSError, http.client.HTTPException):
            return None
        return reply.status

    def _run(self):
        try:
            while not self._stop.is_set():
                if self.crowd.ordered:
                    again = self.open_calls and self.random.random() < 0.5
                    call = self.open_calls.pop(self.random.randrange(len(self.open_calls))) if again else self._choose()
                    status = self._call(*call)
                    if status in (None, 503) or (call[2] and self.random.random() < AGAIN):
                        self.open_calls.append(call)
                time.sleep(PAUSE_S)
        except BaseException as error:
            self.failed = error
            raise
