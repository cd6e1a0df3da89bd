# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A crowd of buyers for a fleet (tests/e2e/fleet.py): each gets a token at some node, goes where it is sent, orders, and asks again until there is a last word.

A buyer who asks for a token at a node where somebody else has a home for her is told 421 and goes there; so she does if she brings her token to the
wrong node, which some do on purpose. "Come again" and no answer at all are tried again; who was told "sold out" goes home.
"""
import collections
import heapq
import itertools
import json
import random
import time
import urllib.parse

import recorder
import talk
from load import AGAIN_S, SOURCES, Callers, Talk

AGAIN_SHARE = 0.3       # of what Retry-After asks for: a test has no time to be polite
ABSENT_S = 0.2          # after no answer
STRAY = 0.05            # who brings the token to another node first
DOUBLE = 0.03           # who clicks twice
SECOND_TOKEN = 0.03     # who asks another node for a second token after the first
ORDERS = "/v1/orders/"
HEADERS = [("User-Agent", "buyer/1.0 (of the tests)"), ("Accept", "application/json"), ("Connection", "close")]

Step = collections.namedtuple("Step", "at number buyer what node token")


class Buyer:
    __slots__ = ("name", "sale", "quantity", "home", "order", "refusal", "tokens")

    def __init__(self, name, sale, quantity):
        self.name, self.sale, self.quantity = name, sale, quantity
        self.home = None      # number of the node that issued the token
        self.tokens = []
        self.order = self.refusal = None


class FleetCrowd(Callers):
    """`rate`: so many new buyers come in a second; None = as many as can be served."""

    def __init__(self, fleet, seed, rate=None, connections=48, pause_s=0.001):
        self.fleet, self.random = fleet, random.Random(seed)
        self.rate, self.came, self.began = rate, 0, None
        super().__init__(fleet.crowd, self.random.randrange(SOURCES), connections, pause_s)
        self.node_of = {node.network.address["ipv4"]: node.number for node in fleet.nodes}
        self.peers = {node.number: (node.network.address["ipv4"], 8080) for node in fleet.nodes}
        self.steps, self._numbers = [], itertools.count()
        self.fresh = collections.deque()
        self.reluctant = False                     # who has a token waits with it, as long as this is set
        self.kept_back = collections.deque()       # steps of those
        self.buyers, self.refused = [], collections.Counter()
        self.answers = collections.Counter()       # to orders, by code or status
        self.answers_of = collections.Counter()    # the same, with the node before it
        self.token_answers = collections.Counter()
        self.sold = collections.Counter()          # units by node, as the 201s tell
        self.sold_at = []                          # (monotonic s, units) of each

    # --- buyers -----------------------------------------------------------------------------------------------------------------
    def add_buyers(self, sale, count, entries=None, quantities=(1,)):
        """`entries`: numbers of the nodes that they come to first, each with its weight: {1: 1} is all at node 1."""
        nodes = list(entries or {node: 1 for node in self.peers})
        weights = [(entries or {}).get(node, 1) for node in nodes]
        for _ in range(count):
            buyer = Buyer(f"b{len(self.buyers)}-{self.random.getrandbits(40):x}", sale, self.random.choice(quantities))
            self.buyers.append(buyer)
            self.fresh.append((buyer, self.random.choices(nodes, weights)[0]))

    def _may_come(self):
        """One more new buyer, by the rate."""
        now = time.monotonic()
        self.began = self.began or now
        if self.rate and self.came >= (now - self.began) * self.rate:
            return False
        self.came += 1
        return True

    def _again(self, delay, buyer, what, node, token=None):
        step = Step(time.monotonic() + delay, next(self._numbers), buyer, what, node, token)
        if what == "order" and self.reluctant:
            self.kept_back.append(step)
        else:
            heapq.heappush(self.steps, step)

    def _elsewhere(self, node):
        return self.random.choice([other for other in self.peers if other != node])

    def next_talk(self):
        if self.steps and self.steps[0].at <= time.monotonic():
            step = heapq.heappop(self.steps)
        elif self.kept_back and not self.reluctant:
            step = self.kept_back.popleft()
        else:
            if not self.fresh or not self._may_come():
                return None
            buyer, node = self.fresh.popleft()
            step = Step(0, 0, buyer, "token", node, None)
        return Talk(step, self.peers[step.node], self._request(step))

    @staticmethod
    def _request(step):
        if step.what == "token":
            body = json.dumps({"buyer": step.buyer.name, "quantity": step.buyer.quantity}).encode()
            return talk.request("POST", f"{step.buyer.sale.path}/tokens", [*HEADERS, ("Content-Type", "application/json")], body)
        return talk.request("POST", ORDERS + step.token, HEADERS)

    # --- answers ----------------------------------------------------------------------------------------------------------------
    def ended(self, conversation, answer, error):
        step = conversation.plan
        status = answer.status if answer else None
        body = recorder.json_or_none(answer.body) if answer else None
        code = body.get("code") if answer and status >= 400 and isinstance(body, dict) else None
        if step.what == "token":
            self._token_answered(step, answer, status, body, code)
        else:
            self.fleet[step.node].history.order("POST", step.token, conversation.sent, status, body, len(conversation.buffer), error)
            self._order_answered(step, answer, status, body, code)

    @staticmethod
    def _pause(answer):
        after = answer.header("retry-after") if answer else None
        return float(after) * AGAIN_SHARE if after else AGAIN_S if answer else ABSENT_S

    def _sent_to(self, answer):
        """The node that a Location names."""
        return self.node_of[urllib.parse.urlsplit(answer.header("location")).hostname]

    def _token_answered(self, step, answer, status, body, code):
        buyer = step.buyer
        self.token_answers[code or status] += 1
        if status == 421:
            self._again(0, buyer, "token", self._sent_to(answer))
        elif status in (200, 201):
            token = body["token"]
            buyer.home = step.node
            if token in buyer.tokens:
                return
            buyer.tokens.append(token)
            stray = self.random.random() < STRAY
            self._again(0, buyer, "order", self._elsewhere(step.node) if stray else step.node, token)
            if self.random.random() < DOUBLE:
                self._again(self.random.choice((0, 0, 0.001, 0.02)), buyer, "order", step.node, token)
            if len(buyer.tokens) == 1 and self.random.random() < SECOND_TOKEN:
                self._again(0, buyer, "token", self._elsewhere(step.node))
        elif status is None or status in (404, 429, 503):
            self._again(self._pause(answer) * self.random.uniform(0.5, 1.5), buyer, "token", step.node)
        else:
            buyer.refusal = buyer.refusal or code

    def _order_answered(self, step, answer, status, body, code):
        buyer = step.buyer
        self.answers[code or status] += 1
        self.answers_of[step.node, code or status] += 1
        if status == 421:
            self._again(0, buyer, "order", self._sent_to(answer), step.token)
        elif status in (200, 201) and body.get("state") != "pending":
            buyer.order = body
            if status == 201:
                self.sold[step.node] += body["quantity"]
                self.sold_at.append((time.monotonic(), body["quantity"]))
        elif status is None or status in (200, 202, 429, 503):
            self._again(self._pause(answer) * self.random.uniform(0.5, 1.5), buyer, "order", step.node, step.token)
        else:
            buyer.refusal = buyer.refusal or code

    def hung_up(self, conversation):
        step = conversation.plan
        if step.what == "order":
            self.fleet[step.node].history.order("POST", step.token, conversation.sent, None, None, len(conversation.buffer), "hung up")

    # --- how far they are ---------------------------------------------------------------------------------------------------------
    def units(self):
        """Units that buyers were told are theirs."""
        return sum(buyer.order["quantity"] for buyer in self.buyers if buyer.order)

    def idle(self):
        """Everybody has had a last word, and nobody says another. (What passes from one list to the next is in neither for a moment, so these alone do not tell.)"""
        assert self.failed is None, self.failed
        return all(buyer.order or buyer.refusal for buyer in self.buyers) and \
            not self.talks and not self.fresh and not self.steps and not self.kept_back

    def waiting_at(self, node):
        """Whose token is at home there and who has had no last word."""
        return sum(buyer.home == node and not buyer.order and not buyer.refusal for buyer in self.buyers)

    def summary(self):
        return f"tokens {dict(self.token_answers)}, orders {dict(self.answers)}, units by node {dict(self.sold)}"
