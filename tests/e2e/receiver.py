# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A shop's backend that takes webhooks, as well or as badly as a test wants. It checks every signature itself."""
import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import socket
import ssl
import threading
import time

HOST = "127.0.0.1"


def key_of(secret):
    prefix, key = secret[:6], secret[6:]
    assert prefix == "whsec_", secret
    return base64.b64decode(key)


def signature(secret, webhook_id, timestamp, body):
    """Standard Webhooks, "Signature scheme"; written from its text, not from ours."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


class Delivery:
    """One request as it came."""

    def __init__(self, headers, body):
        self.headers = headers
        self.body = body
        self.id = headers["webhook-id"]
        self.timestamp = int(headers["webhook-timestamp"])
        self.signatures = headers["webhook-signature"].split(" ")
        self.message = json.loads(body)
        self.type = self.message["type"]
        self.sale = self.message["data"].get("sale")

    @property
    def position(self):
        return int(self.id.rsplit("_", 1)[1])

    def __repr__(self):
        return f"{self.id} {self.type}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        delivery = Delivery(dict((name.lower(), value) for name, value in self.headers.items()), body)
        with self.server.receiver.lock:
            self.server.receiver.requests.append(delivery)
        self.server.receiver.behaviour(self, delivery)

    def take(self, delivery, status=204, headers=()):
        """Answers; what is answered with 2xx counts as taken."""
        if 200 <= status < 300:
            self.server.receiver.note_taken(delivery)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.connections = set()

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """The other side may go away in the middle of what we say: that is what some tests are about."""


class Receiver:
    """Listens in a namespace. `behaviour(handler, delivery)` decides what to answer."""

    def __init__(self, namespace, certificate=None):
        self.namespace = namespace
        self.certificate = certificate
        self.lock = threading.Lock()
        self.requests = []  # everything that came
        self.taken = []     # what was answered with 2xx
        self.behaviour = Handler.take
        self.release = threading.Event()  # lets go of whoever hangs
        self.server = None
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"{'https' if self.certificate else 'http'}://{'localhost' if self.certificate else HOST}:{self.port}/hooks"

    def note_taken(self, delivery):
        with self.lock:
            self.taken.append(delivery)

    def start(self):
        listener = self.namespace.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            listener = context.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)
        self.server = Server((HOST, self.port), Handler, bind_and_activate=False)
        self.server.socket.close()
        self.server.socket = listener
        self.server.receiver = self
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """What a crash looks like: nobody listens any more, and open connections end."""
        self.release.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server.hang_up()
            self.server = None

    # --- what came ------------------------------------------------------------------------------------------------------
    def of(self, slug, deliveries=None):
        with self.lock:
            return [delivery for delivery in (self.taken if deliveries is None else deliveries) if delivery.sale == slug]

    def types(self, slug):
        """Types of a sale's events in the order in which each was taken first."""
        return [delivery.type for delivery in self.once(slug)]

    def once(self, slug):
        """Deliveries of a sale, without those that came again."""
        seen = {}
        for delivery in self.of(slug):
            seen.setdefault(delivery.id, delivery)
        return list(seen.values())

    def assert_sound(self, secrets):
        """Each request is signed with each secret; one id is always the same bytes; positions of a sale never go back but to what came before."""
        with self.lock:
            requests, taken = list(self.requests), list(self.taken)
        bodies, last = {}, {}
        for delivery in requests:
            assert delivery.signatures == [signature(secret, delivery.id, delivery.timestamp, delivery.body) for secret in secrets], delivery
            assert abs(delivery.timestamp - time.time()) < 300, delivery
            assert delivery.headers["content-type"] == "application/json"
            assert bodies.setdefault(delivery.id, delivery.body) == delivery.body, delivery
        known = set()
        for delivery in taken:
            if delivery.id not in known:
                assert delivery.position > last.get(delivery.sale, 0), (delivery, last)
                last[delivery.sale] = delivery.position
            known.add(delivery.id)


@contextlib.contextmanager
def receiving(namespace, **kwargs):
    receiver = Receiver(namespace, **kwargs)
    try:
        yield receiver
    finally:
        receiver.stop()


# --- behaviours -----------------------------------------------------------------------------------------------------------
def answers(status, *headers):
    return lambda handler, delivery: handler.take(delivery, status, headers)


def hangs(handler, delivery):
    """Takes the request and says nothing."""
    del delivery
    handler.server.receiver.release.wait(60)
    handler.close_connection = True


def drips(handler, delivery):
    """A head without an end, a byte now and then."""
    del delivery
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not handler.server.receiver.release.wait(0.2):
            handler.wfile.write(b"x")
    handler.close_connection = True


def floods(status):
    """A body without an end."""
    def behaviour(handler, delivery):
        if status < 300:
            handler.server.receiver.note_taken(delivery)
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 %d Whatever\r\nContent-Type: text/plain\r\n\r\n" % status)
            while not handler.server.receiver.release.is_set():
                handler.wfile.write(b"x" * 65536)
    return behaviour


def talks_nonsense(handler, delivery):
    del delivery
    handler.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n" * 10)
    handler.close_connection = True


def hangs_up(handler, delivery):
    del delivery
    handler.close_connection = True


def only_for(slug, behaviour):
    """So for one sale, and well for the others."""
    def choose(handler, delivery):
        (behaviour if delivery.sale == slug else Handler.take)(handler, delivery)
    return choose
