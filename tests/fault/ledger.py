# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Reads a ledger as it is on the disk, without a line of the product's code: SQLite through Python's own sqlite3, PostgreSQL through psql.

The tables are those that docs/writer-protocol.md and the schema name. Numbers of 64 bits without sign are stored as signed ones with the
same bits; here they are what they mean.
"""
import dataclasses
import os
import sqlite3
import subprocess

MASK = (1 << 64) - 1
LIVE = ("held", "confirmed")
PSQL_TIMEOUT_S = 60


@dataclasses.dataclass
class Sale:
    id: int
    slug: str
    opens_ns: int
    ends_ns: int
    per_buyer: int
    put_in: int
    held: int
    confirmed: int
    orders: int


@dataclasses.dataclass
class Order:
    position: int
    serial: int
    sale: int
    seq: int
    state: str
    quantity: int
    buyer: int
    hold_seconds: int
    admitted_ns: int
    committed_ns: int

    @property
    def id(self):
        return f"{self.serial:016x}"


@dataclasses.dataclass
class Move:
    position: int
    key: str
    sale: int
    delta: int
    at_ns: int


@dataclasses.dataclass
class Event:
    """A change of an order after it was held."""
    position: int
    type: str
    sale: int
    serial: int
    at_ns: int
    restocked: bool = True

    @property
    def state(self):
        return self.type.partition(".")[2]


class Ledger:
    def __init__(self, sales, orders, moves, events):
        self.sales = {sale.id: sale for sale in sales}
        self.orders = sorted(orders, key=lambda order: order.position)
        self.moves = sorted(moves, key=lambda move: move.position)
        self.events = sorted(events, key=lambda event: event.position)
        self.by_serial = {order.serial: order for order in self.orders}
        self.events_of = {}
        for event in self.events:
            self.events_of.setdefault(event.serial, []).append(event)

    def states(self, order):
        """[(ns, state)]: every state that the order has been in, and since when."""
        return [(order.committed_ns, "held")] + [(event.at_ns, event.state) for event in self.events_of.get(order.serial, ())]


def read_sales(rows, columns_of):
    del columns_of
    return [Sale(*row) for row in rows("SELECT id, slug, opens_ns, ends_ns, per_buyer, put_in, held, confirmed, orders FROM sales")]


def read_books(rows, columns_of):
    """The sales, and how far the ledger had got when they were read: the last positions of `moves` and of `steps` (orders and their events).

    PostgreSQL is asked three times, which is no snapshot: who needs one looks twice and wants the same.
    """
    (moves,), = rows("SELECT coalesce(max(position), 0) FROM stock_moves")
    (steps,), = rows("SELECT coalesce(max(position), 0) FROM (SELECT position FROM orders UNION ALL SELECT position FROM events) AS steps")
    return read_sales(rows, columns_of), {"moves": moves, "steps": steps}


def read_all(rows, columns_of):
    """`rows(sql)` gives tuples; `columns_of(table)` the names of a table's columns, none if there is no such table."""
    sales = read_sales(rows, columns_of)
    orders = [Order(*row) for row in rows("SELECT position, serial, sale, seq, state, quantity, buyer, hold_seconds, admitted_ns,"
                                          " committed_ns FROM orders")]
    for order in orders:
        order.serial &= MASK
        order.buyer &= MASK
    moves = [Move(*row) for row in rows("SELECT position, key, sale, delta, at_ns FROM stock_moves")]
    # Those of a sale (opened, sold out, …) have no order.
    by = {"order_position": "o.position = e.order_position", "serial": "o.serial = e.serial"}
    events = [Event(position, kind, sale, serial & MASK, at_ns) for column in columns_of("events") if column in by
              for position, kind, sale, serial, at_ns in rows(
                  f"SELECT e.position, e.type, e.sale, o.serial, e.at_ns FROM events e JOIN orders o ON {by[column]}")]
    not_restocked = {move.key.partition(":")[2] for move in moves if move.key.startswith("refund:")}
    for event in events:
        event.restocked = not (event.state == "refunded" and f"{event.serial:016x}" in not_restocked)
    return Ledger(sales, orders, moves, events)


def from_sqlite(path, reader):
    """Also while the writer runs: a snapshot."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        database.execute("BEGIN")
        return reader(lambda sql: database.execute(sql).fetchall(),
                      lambda table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")])
    finally:
        database.close()


def from_postgres(conninfo, reader):
    def psql(sql):
        done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", sql],
                              env={**os.environ, "PGOPTIONS": "-c search_path=sluice"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=PSQL_TIMEOUT_S, check=False)
        if done.returncode:
            raise OSError(f"psql: {done.stderr.strip()}")
        return [tuple(int(field) if field.lstrip("-").isdigit() else field for field in line.split("\t"))
                for line in done.stdout.splitlines()]

    return reader(psql, lambda table: [row[0] for row in psql(
        f"SELECT column_name FROM information_schema.columns WHERE table_schema = 'sluice' AND table_name = '{table}' ORDER BY ordinal_position")])


def read(where, reader=read_all):
    """`where`: a path is SQLite's; what has a `=` before any `/`, or is a URI, is PostgreSQL's."""
    where = os.fspath(where)
    is_postgres = where.startswith(("postgres://", "postgresql://")) or "=" in where.partition("/")[0]
    return from_postgres(where, reader) if is_postgres else from_sqlite(where, reader)
