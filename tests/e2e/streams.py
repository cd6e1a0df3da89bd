# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What is in the ledger of a node, in the streams of its sales, and in the tables of a consumer: three accounts of the same events."""
import pathlib
import re
import sqlite3

from netns import Failed, wait_until
from world import WRITER, config_text

EVENTS = """
SELECT position, 'order.held', sale, printf('%016x', serial) FROM orders
UNION ALL SELECT e.position, e.type, e.sale, iif(o.serial IS NULL, '', printf('%016x', o.serial)) FROM events e LEFT JOIN orders o ON o.position = e.order_position
ORDER BY 1"""
TABLE_EVENTS = "SELECT position, type, sale, coalesce(order_id, '') FROM sluice_fleet_events WHERE node = {} ORDER BY position"
TABLE_ORDERS = "SELECT id, sale, seq, state, quantity, buyer, restocked FROM sluice_fleet_orders ORDER BY sale, seq"
LEDGER_ORDERS = """SELECT printf('%016x', o.serial), s.slug, o.seq, o.state, o.quantity, printf('%016x', o.buyer), o.restocked
FROM orders o JOIN sales s ON s.id = o.sale ORDER BY s.slug, o.seq"""


def ledger_rows(node, sql):
    base = sqlite3.connect(f"file:{node.ledger}?mode=ro", uri=True)
    try:
        return base.execute(sql).fetchall()
    finally:
        base.close()


def slugs_of(node):
    return dict(ledger_rows(node, "SELECT id, slug FROM sales"))


def ledger_events(node, slug=None):
    """[(position, type, slug, order's id)], by position."""
    slugs = slugs_of(node)
    rows = [(position, kind, slugs[sale], order) for position, kind, sale, order in ledger_rows(node, EVENTS)]
    return [row for row in rows if slug in (None, row[2])]


def ledger_orders(node):
    return [tuple(str(value) for value in row) for row in ledger_rows(node, LEDGER_ORDERS)]


class Stream:
    """The stream of one sale, as anybody reads it."""

    def __init__(self, hub, prefix, slug):
        self.hub, self.slug = hub, slug
        self.key, self.cursors = f"{prefix}:{{{slug}}}:orders", f"{prefix}:{{{slug}}}:cursors"

    def call(self, command, *words):
        """A command whose first argument is the stream."""
        return self.hub.call(command, self.key, *words)

    def entries(self):
        """[(id, {field: value})]."""
        return [(entry, dict(zip(fields[::2], fields[1::2]))) for entry, fields in self.call("XRANGE", "-", "+")]

    def events(self, node=1):
        """As ledger_events has them, in the order of the stream."""
        return [(int(fields["position"]), fields["type"], fields["sale"], fields.get("id", ""))
                for _, fields in self.entries() if fields["node"] == str(node)]

    def cursor(self, node=1):
        return int(self.hub.call("HGET", self.cursors, node) or 0)

    def pending(self, group):
        return self.call("XPENDING", group)[0]


def metric(node, name):
    """The value of a metric; the sum, if it has labels."""
    text = node.control("GET", "/metrics").body.decode()
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert values, f"there is no metric {name}"
    return sum(float(value) for value in values)


def wait_same(node, stream, timeout=30):
    """The stream has what the ledger has of its sale: every event once, in its order."""
    def same():
        return stream.events() == ledger_events(node, stream.slug)
    try:
        wait_until(same, f"the stream of {stream.slug} is what the ledger has", timeout=timeout, pause=0.2)
    except AssertionError as error:
        there, here = stream.events(), ledger_events(node, stream.slug)
        raise AssertionError(f"{error}\nmissing {[e for e in here if e not in there][:5]}\ntwice or alien "
                             f"{[e for i, e in enumerate(there) if e in there[:i] or e not in here][:5]}\n"
                             f"{len(there)} in the stream, {len(here)} in the ledger\n{node.daemon.log()[-3000:]}") from error


def at_least_once(there, here):
    """Every event of the ledger, in the ledger's order where it comes for the first time."""
    first = list(dict.fromkeys(there))
    return first == here


class Consumer:
    """sluice-writer --consume beside a node. `conninfo`: of PostgreSQL. `more`: settings that are not those of the node."""
    count = 0

    def __init__(self, node, conninfo, name, group="sluice", **more):
        Consumer.count += 1
        self.node, self.name, self.group = node, name, group
        self.config = pathlib.Path(node.dir, f"consumer-{Consumer.count}.conf")
        settings = {key: value for key, value in node.settings.items() if not key.startswith("writer.")}
        self.config.write_text(config_text({**settings, "writer.postgres": conninfo, **more}), encoding="utf-8")
        self.log_path = node.dir / f"consumer-{name}.log"
        self.process = None
        self.start()

    def start(self):
        self.process = self.node.shop.start([WRITER, "--consume", "--group", self.group, "--consumer", self.name, "--config", self.config],
                                            self.log_path)

    def kill(self):
        self.process.kill()

    def stop(self):
        """The exit code."""
        return self.process.terminate()

    def log(self):
        return self.process.log()


def table_events(server, node=1):
    """Of a consumer that has not yet made its tables: nothing."""
    if not server.query("SELECT 1 FROM pg_tables WHERE tablename = 'sluice_fleet_rejected'"):
        return []
    return [(int(position), kind, sale, order) for position, kind, sale, order in server.query(TABLE_EVENTS.format(node))]


def table_orders(server):
    return [(order, sale, seq, state, quantity, buyer, "1" if restocked == "t" else "0")
            for order, sale, seq, state, quantity, buyer, restocked in server.query(TABLE_ORDERS)]


def wait_tables(server, node, consumers, timeout=60):
    """The consumer's tables are the ledger, exactly."""
    def pairs():
        return (table_events(server), ledger_events(node)), (table_orders(server), ledger_orders(node))

    def same():
        return all(there == here for there, here in pairs())
    try:
        wait_until(same, "the tables have what the ledger has", timeout=timeout, pause=0.3)
    except (AssertionError, Failed) as error:
        differences = "\n".join(f"{len(there)} in the table, {len(here)} in the ledger; missing {sorted(set(here) - set(there))[:3]}, "
                                f"alien {sorted(set(there) - set(here))[:3]}" for there, here in pairs())
        logs = "\n".join(f"--- consumer {consumer.name}\n{consumer.log()[-2000:]}" for consumer in consumers)
        raise AssertionError(f"{error}\n{differences}\n{logs}") from error
