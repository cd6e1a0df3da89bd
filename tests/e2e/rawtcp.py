# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A TCP client without a kernel: every segment is sent by hand, so it can be repeated, left out or come too late.

It uses addresses of 10.73.0.0/16 and fd73::/32, which the shop routes to the crowd, where nobody has them: no kernel
answers in between. Segments are built and read with scapy; checksums of what comes back are checked.
"""
import itertools
import logging
import random
import socket
import struct
import time

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.layers.inet import IP, TCP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Dot1Q, Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from world import DEVICE, PORT, SHOP  # noqa: E402

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID = 1 << 4

_addresses = itertools.count(1)


def unowned_address(family):
    n = next(_addresses)
    return f"10.73.{n // 250}.{n % 250 + 1}" if family == "ipv4" else f"fd73:0:0:{n:x}::1"


class RawClient:
    def __init__(self, world, family, tagged=None, to=None, to_port=PORT):
        self.family = family
        self.source, self.destination = unowned_address(family), to or SHOP[family]
        self.port, self.to_port = random.randint(20000, 60000), to_port
        self.seq = self.isn = random.randrange(1 << 32)
        self.ack = 0
        self.received = b""
        self.sock = world.crowd.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.bind((DEVICE, 0))
        self.sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.tags = []  # of the segment received last, outer first
        ether = Ether(src=world.network.mac(world.crowd), dst=world.network.mac(world.shop))
        for vlan in tagged or ():
            ether = ether / Dot1Q(vlan=vlan)
        ip = IP(src=self.source, dst=self.destination) if family == "ipv4" else \
            IPv6(src=self.source, dst=self.destination)
        self.base = ether / ip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def segment(self, flags, data=b"", seq=None, ack=None, options=()):
        tcp = TCP(sport=self.port, dport=self.to_port, flags=flags, seq=self.seq if seq is None else seq,
                  ack=(self.ack if ack is None else ack) if "A" in flags else 0, window=65535, options=list(options))
        return bytes(self.base / tcp / Raw(data) if data else self.base / tcp)

    def send(self, flags, data=b"", **fields):
        self.sock.send(self.segment(flags, data, **fields))

    def receive(self, timeout=5.0):
        """The next segment to us, or None. Its checksums have been verified."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                frame, aux, _, _ = self.sock.recvmsg(65536, 256)
            except (TimeoutError, BlockingIOError):
                return None
            packet = Ether(frame)
            kind = IP if self.family == "ipv4" else IPv6
            if kind not in packet or TCP not in packet or packet[kind].dst != self.source or \
                    packet[TCP].dport != self.port or packet[TCP].sport != self.to_port:
                continue
            self.tags = [tag for _, _, data in aux for tag in outer_tag(data)]
            self.tags += [layer.vlan for layer in packet.iterpayloads() if isinstance(layer, Dot1Q)]
            return packet

    def checksums_are_good(self, packet):
        """Computes them anew. Only for frames of the gate: the kernel leaves its own to a device that veth has not."""
        kind = IP if self.family == "ipv4" else IPv6
        fresh = packet[kind].copy()
        if kind is IP:
            del fresh[IP].chksum
        del fresh[TCP].chksum
        fresh = kind(bytes(fresh))
        return fresh[TCP].chksum == packet[TCP].chksum and (kind is IPv6 or fresh[IP].chksum == packet[IP].chksum)

    def handshake(self, bare_ack=True, **syn_fields):
        """SYN, SYN-ACK and, unless it gets lost, the ACK. Returns the SYN-ACK."""
        syn_fields.setdefault("options", [("MSS", 1460 if self.family == "ipv4" else 1440)])
        self.send("S", **syn_fields)
        answer = self.receive()
        assert answer is not None, "no answer to the SYN"
        assert answer[TCP].flags == "SA", answer.summary()
        assert answer[TCP].ack == (self.seq + 1) % (1 << 32)
        self.seq = (self.seq + 1) % (1 << 32)
        self.ack = (answer[TCP].seq + 1) % (1 << 32)
        if bare_ack:
            self.send("A")
        return answer

    def take(self, packet):
        """Accepts what came in order: data is added to `received`. True if the peer has said FIN."""
        tcp = packet[TCP]
        data = payload(packet)
        if tcp.seq == self.ack and (data or tcp.flags.F):
            self.received += data
            self.ack = (self.ack + len(data) + (1 if tcp.flags.F else 0)) % (1 << 32)
            return bool(tcp.flags.F)
        return False

    def receive_until_end(self, timeout=10.0):
        """Acknowledges as it comes, until FIN. Returns the bytes. The FIN is acknowledged with the next segment sent."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            packet = self.receive(deadline - time.monotonic())
            assert packet is not None, f"no FIN; so far: {self.received!r}"
            assert not packet[TCP].flags.R, f"reset; so far: {self.received!r}"
            if self.take(packet):
                return self.received
            if payload(packet):
                self.send("A")
        raise AssertionError(f"no FIN; so far: {self.received!r}")


def outer_tag(auxdata):
    """The kernel takes the first tag out of the frame before a packet socket sees it (struct tpacket_auxdata)."""
    status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", auxdata[:20])
    return [tci & 0xFFF] if status & TP_STATUS_VLAN_VALID else []


def payload(packet):
    """TCP data without the padding that Ethernet adds to short frames."""
    tcp = packet[TCP]
    if IP in packet:
        length = packet[IP].len - packet[IP].ihl * 4 - tcp.dataofs * 4
    else:
        length = packet[IPv6].plen - tcp.dataofs * 4
    return bytes(tcp.payload)[:max(length, 0)]
