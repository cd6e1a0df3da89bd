# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Reads, forges and signs tokens, with the keys out of the gate's map: what an insider or a clumsy forger could send.

Written from the description of the token alone (48 bytes, little-endian, SipHash-2-4 of the first 40), so it is also a
second opinion on how the programs make and read them.
"""
import base64
import dataclasses
import struct

LAYOUT = struct.Struct("<BBBBIIIQQII")
MASK = (1 << 64) - 1


def siphash24(message, k0, k1):
    """Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012)."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotl(x, n):
        return (x << n | x >> (64 - n)) & MASK

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1] = rotl(v[1], 13) ^ v[0]
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[1]) & MASK
            v[0] = (v[0] + v[3]) & MASK
            v[1] = rotl(v[1], 17) ^ v[2]
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = rotl(v[2], 32)

    whole = len(message) // 8 * 8
    last = message[whole:] + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", message[:whole] + last):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@dataclasses.dataclass
class Token:
    version: int
    key_id: int
    quantity: int
    flags: int
    sale: int
    issued_at: int
    expires_at: int
    buyer: int
    serial: int
    network: int
    node: int
    mac: int = 0

    @classmethod
    def read(cls, text):
        raw = base64.urlsafe_b64decode(text)
        assert len(text) == 64 and len(raw) == 48, text
        return cls(*LAYOUT.unpack(raw[:40]), struct.unpack("<Q", raw[40:])[0])

    def _body(self):
        return LAYOUT.pack(self.version, self.key_id, self.quantity, self.flags, self.sale, self.issued_at,
                           self.expires_at, self.buyer, self.serial, self.network, self.node)

    def text(self):
        return base64.urlsafe_b64encode(self._body() + struct.pack("<Q", self.mac)).decode("ascii")

    def signed(self, keys, **changes):
        """Text of this token with `changes`, signed. `keys`: {key id: (k0, k1)}."""
        token = dataclasses.replace(self, **changes)
        token.mac = siphash24(token._body(), *keys[token.key_id])
        return token.text()

    def mac_is_good(self, keys):
        return self.key_id in keys and siphash24(self._body(), *keys[self.key_id]) == self.mac


def damaged(text):
    """The same token with one bit of its signature turned over."""
    token = Token.read(text)
    token.mac ^= 1
    return token.text()


# The paper's own vector: key 00..0f, message 00..0e.
assert siphash24(bytes(range(15)), 0x0706050403020100, 0x0F0E0D0C0B0A0908) == 0xA129CA6149BE45E5
