# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The way to Redis with all that can be wrong with it: relays TCP, and delays, holds, loses or cuts what goes through.

    detour.py CONTROL_SOCKET ADDRESS          in the namespace where Redis listens; started by redisd.py

A lane is the way of one peer: a network device on which its connections come in. All lanes listen at the same ports of ADDRESS, bound to their
device, so a peer cannot tell that it does not talk to Redis itself, and the addresses that a Redis Cluster tells of are right for everybody.
Commands are lines of JSON on the control socket, each answered by one line:

    {"do":"listen", "lane":"node1", "port":7000}
    {"do":"route", "port":7000, "to":7100}                 where a port leads, for connections that are made from now on; "to": null = nowhere
    {"do":"weather", "lane":"node1", …}                    what is not named goes back to fair:
        "ask_ms", "answer_ms"   delay of each byte on its way to Redis, and back
        "hold"                  nothing goes either way; what comes meanwhile goes on afterwards
        "mute"                  questions arrive, and their answers are lost: at the first byte of one the connection is cut
    {"do":"cut", "lane":"node1"}                           every connection of the lane ends now
    {"do":"counts", "lane":"node1"}                        {"connections", "asked_bytes", "answered_bytes"} so far

This kernel's own means (tc netem) are not to be had everywhere; and they can neither delay the answers alone nor cut a connection in
the middle of one.
"""
import asyncio
import json
import socket
import sys

CHUNK = 1 << 16
FAIR = {"ask_ms": 0, "answer_ms": 0, "hold": False, "mute": False}


class Lane:
    def __init__(self, name):
        self.name = name
        self.weather = dict(FAIR)
        self.going = asyncio.Event()  # not held
        self.going.set()
        self.writers = set()
        self.counts = {"connections": 0, "asked_bytes": 0, "answered_bytes": 0}

    def set_weather(self, changes):
        self.weather = {**FAIR, **changes}
        (self.going.clear if self.weather["hold"] else self.going.set)()

    def cut(self):
        for writer in list(self.writers):
            writer.transport.abort()


class Detour:
    def __init__(self, address):
        self.address = address
        self.lanes, self.routes, self.servers = {}, {}, []

    def lane(self, name):
        return self.lanes.setdefault(name, Lane(name))

    async def listen(self, lane, port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, lane.name.encode())
        sock.bind((self.address, port))
        self.servers.append(await asyncio.start_server(lambda reader, writer: self.relay(lane, port, reader, writer), sock=sock))

    async def relay(self, lane, port, reader, writer):
        """One connection, until either end closes it."""
        far_writer = None
        lane.counts["connections"] += 1
        lane.writers.add(writer)
        try:
            await lane.going.wait()
            if self.routes.get(port) is None:
                return
            far_reader, far_writer = await asyncio.open_connection(self.address, self.routes[port])
            ways = [asyncio.ensure_future(self.carry(lane, "ask", reader, far_writer)),
                    asyncio.ensure_future(self.carry(lane, "answer", far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody listens there: the peer sees its connection end
        finally:
            lane.writers.discard(writer)
            for end in (writer, far_writer):
                if end:
                    end.transport.abort()

    async def carry(self, lane, way, reader, writer):
        """Reads at once and hands on when it is time, so that a delay is one of each byte and no limit of the rate."""
        queue = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def take():
            while data := await reader.read(CHUNK):
                lane.counts[f"{way}ed_bytes"] += len(data)
                queue.put_nowait((loop.time() + lane.weather[f"{way}_ms"] / 1000, data))
            queue.put_nowait((0, b""))

        taking = asyncio.ensure_future(take())
        try:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await lane.going.wait()
                if not data or way == "answer" and lane.weather["mute"]:
                    return
                writer.write(data)
                await writer.drain()
        finally:
            taking.cancel()

    async def obey(self, order):
        do, lane = order.pop("do"), self.lane(order.pop("lane")) if "lane" in order else None
        if do == "listen":
            await self.listen(lane, order["port"])
        elif do == "route":
            self.routes[order["port"]] = order["to"]
        elif do == "weather":
            lane.set_weather(order)
        elif do == "cut":
            lane.cut()
        elif do == "counts":
            return lane.counts
        else:
            raise ValueError(f"no such command: {do}")
        return {}

    async def commands(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = await self.obey(json.loads(line))
            except (OSError, KeyError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def main(control, address):
    detour = Detour(address)
    server = await asyncio.start_unix_server(detour.commands, control)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
