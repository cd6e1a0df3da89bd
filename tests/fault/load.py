# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A crowd of buyers for the fault tests: many connections at once, retries, double clicks, several tokens, and who asks again after a yes.

One thread with non-blocking sockets inside the crowd's namespace (Callers); what is asked, and what comes of an answer, is a subclass's to say: Crowd
here, and fleet_load.py. Everything random comes from the seed; what the machine does with it does not, of course. Every request goes into
the World's history, so nothing is judged here.
"""
import collections
import errno
import heapq
import itertools
import random
import select
import socket
import threading
import time

import recorder
import talk
import world as world_module

AGAIN_S = 0.03       # after "come again", or no answer
SOLD_OUT_S = 0.15    # who was told "sold out" looks again, for units may return
PATIENCE_S = 15.0    # longer than the daemon lets anybody wait
SOURCES = 60000      # of 10.72.0.0/16
UNANSWERED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE)

Plan = collections.namedtuple("Plan", "at number method token")


class Talk:
    """One connection with one request on it. `plan` is the subclass's own."""

    def __init__(self, plan, peer, request):
        self.plan, self.peer, self.request = plan, peer, request
        self.sock = None
        self.buffer = b""
        self.sent = recorder.clocks()
        self.deadline = time.monotonic() + PATIENCE_S

    def answer(self):
        """The answer, if all of it is there."""
        head, rest = talk.split_head(self.buffer)
        if head and len(rest) >= (0 if head.status == 204 else int(head.header("content-length"))):
            head.body = rest
            return head
        return None


class Callers:
    """Many connections at once, each from an address of its own. A subclass has next_talk(): what to ask now, or None; and
    ended(talk, answer, error): `answer` is whole, or None.
    """

    def __init__(self, crowd, first_source, connections, pause_s):
        self.crowd, self.connections, self.pause_s = crowd, connections, pause_s
        self._sources = itertools.count(first_source)
        self.talks = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd")
        self.failed = None

    def next_talk(self):
        raise NotImplementedError

    def ended(self, conversation, answer, error):
        raise NotImplementedError

    def _open(self, conversation):
        number = next(self._sources) % SOURCES
        sock = conversation.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((f"10.72.{number // 250}.{number % 250 + 1}", 0))
        result = sock.connect_ex(conversation.peer)
        if result not in (0, errno.EINPROGRESS):
            self._end(conversation, None, errno.errorcode[result])
            return
        self.talks[sock.fileno()] = conversation
        self._poll.register(sock, select.EPOLLOUT)

    def _end(self, conversation, answer, error=None):
        if conversation.sock.fileno() in self.talks:
            self._poll.unregister(conversation.sock)
            del self.talks[conversation.sock.fileno()]
        conversation.sock.close()
        self.ended(conversation, answer, error)

    def _ready(self, conversation, events):
        sock = conversation.sock
        try:
            if events & select.EPOLLOUT and conversation.request:
                conversation.request = conversation.request[sock.send(conversation.request):]
                if not conversation.request:
                    self._poll.modify(sock, select.EPOLLIN)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = sock.recv(65536)
                conversation.buffer += data
                answer = conversation.answer()
                if answer:
                    self._end(conversation, answer)
                elif not data:
                    self._end(conversation, None, "closed")
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in UNANSWERED:
                raise
            self._end(conversation, None, errno.errorcode[error.errno])

    def _turn(self):
        while len(self.talks) < self.connections:
            conversation = self.next_talk()
            if not conversation:
                break
            self._open(conversation)
        for fd, events in self._poll.poll(0.005):
            if fd in self.talks:
                self._ready(self.talks[fd], events)
        now = time.monotonic()
        for conversation in [conversation for conversation in self.talks.values() if conversation.deadline < now]:
            self._end(conversation, None, "patience")

    def _run(self):
        try:
            with self.crowd.entered():
                self._poll = select.epoll()
                while not self._stop.is_set():
                    self._turn()
                    time.sleep(self.pause_s)
                self._poll.close()
        except BaseException as error:
            self.failed = error
            raise

    # --- life -------------------------------------------------------------------------------------------------------------------
    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        """Whoever is still waiting for an answer hangs up."""
        self._stop.set()
        self._thread.join(30)
        for conversation in list(self.talks.values()):
            conversation.sock.close()
            self.hung_up(conversation)
        self.talks.clear()

    def hung_up(self, conversation):
        raise NotImplementedError


class Crowd(Callers):
    def __init__(self, world, seed, connections=16, pause_s=0.002):
        self.world, self.random = world, random.Random(seed)
        super().__init__(world.crowd, self.random.randrange(SOURCES), connections, pause_s)
        self.keys, self.templates = world.signing_keys(), {}
        self.plans, self._numbers = [], itertools.count()
        self.fresh = collections.deque()
        self.ordered = []         # as the answers told them
        self.answers = collections.Counter()
        self.cancels = 0.05       # how many of those with an order take it back
        self._lock = threading.Lock()

    # --- buyers -----------------------------------------------------------------------------------------------------------------
    def add_buyers(self, sale, count, per_buyer=1):
        """Buyers with one or two tokens each, signed as the daemon would. With two, a buyer may try for more than the limit."""
        if sale not in self.templates:
            self.templates[sale] = world_module.Token.read(sale.token())
        template = self.templates[sale]
        for _ in range(count):
            buyer = self.random.getrandbits(64)
            for _ in range(self.random.choice((1, 1, 1, 2))):
                token = template.signed(self.keys, buyer=buyer, serial=self.random.getrandbits(64),
                                        quantity=self.random.randint(1, per_buyer))
                with self._lock:
                    self.fresh.append(token)

    def waiting(self):
        """Buyers who have not asked yet."""
        return len(self.fresh)

    def _plan(self, token, delay, method="POST"):
        heapq.heappush(self.plans, Plan(time.monotonic() + delay, next(self._numbers), method, token))

    def _next(self):
        """What to ask now, or None."""
        if self.plans and self.plans[0].at <= time.monotonic():
            return heapq.heappop(self.plans)
        with self._lock:
            token = self.fresh.popleft() if self.fresh else None
        if not token:
            return None
        if self.random.random() < 0.15:
            self._plan(token, self.random.choice((0, 0, 0.001, 0.02)))  # a double click
        return Plan(0, next(self._numbers), "POST", token)

    def _react(self, plan, status, code):
        """What this buyer does after an answer."""
        token, chance = plan.token, self.random.random()
        self.answers[code or status] += 1
        if plan.method != "POST":
            if status is None or status in (202, 429, 503):
                self._plan(token, AGAIN_S, plan.method)
        elif status in (200, 201):
            if chance < self.cancels:
                self._plan(token, self.random.uniform(0, 0.2), "DELETE")
            if self.random.random() < 0.15:
                self._plan(token, self.random.uniform(0, 0.5), self.random.choice(("POST", "GET")))
        elif status is None or status in (202, 429, 503):
            self._plan(token, AGAIN_S * self.random.uniform(0.5, 2))
        elif code == "sold_out" and chance < 0.3:
            self._plan(token, SOLD_OUT_S * self.random.uniform(0.5, 2))

    # --- talks ------------------------------------------------------------------------------------------------------------------
    def next_talk(self):
        plan = self._next()
        if not plan:
            return None
        return Talk(plan, (self.world.network.address["ipv4"], world_module.PORT),
                    talk.request(plan.method, f"/v1/orders/{plan.token}", [("Connection", "close")]))

    def ended(self, conversation, answer, error):
        plan = conversation.plan
        body = recorder.json_or_none(answer.body) if answer else None
        status = answer.status if answer else None
        self.world.history.order(plan.method, plan.token, conversation.sent, status, body, len(conversation.buffer), error)
        if plan.method == "POST" and status == 201:
            self.ordered.append(body)
        self._react(plan, status, body.get("code") if answer and status >= 400 and isinstance(body, dict) else None)

    def hung_up(self, conversation):
        plan = conversation.plan
        self.world.history.order(plan.method, plan.token, conversation.sent, None, None, len(conversation.buffer), "hung up")

    def idle(self):
        """Nobody talks and nobody wants to, but for those who look again for returned units."""
        assert self.failed is None, self.failed
        return not self.talks and not self.fresh and not self.plans
