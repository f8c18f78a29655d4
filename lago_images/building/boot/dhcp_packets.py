"""Read out of captured packets by what a guest's DHCP clients make themselves known. Pure.

A guest writes its packets itself: whatever is not as it must be, or is cut off, tells nothing.
RFC 2131 and 2132 have DHCP, RFC 4361 the identifiers with a DUID in them, RFC 8415 DHCPv6, and
https://www.tcpdump.org/manpages/pcap-savefile.5.txt the file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = 0xA1B2C3D4
_FILE_HEADER, _RECORD_HEADER = 24, 16
# Bytes of a packet that are kept: more than Ethernet's, and all that DHCP sends fits.
LONGEST = 2048
_IPV4, _IPV6, _UDP = 0x0800, 0x86DD, 17
_ETHERNET, _IPV6_HEADER, _UDP_HEADER = 14, 40, 8
# Source and destination of what clients send.
_DHCP, _DHCP6 = (68, 67), (546, 547)
_FRAGMENT = 0x3FFF
_REQUEST, _COOKIE = 1, b"\x63\x82\x53\x63"
# Where in a DHCP message the hardware's address, the cookie and the options are.
_HARDWARE, _OPTIONS = 28, 240
_LONGEST_HARDWARE = 16
_PAD, _END, _KIND, _CLIENT_ID = 0, 255, 53, 61
_DISCOVERING, _REQUESTING = b"\x01", b"\x03"
# The type of an identifier that is an IAID of four bytes and a DUID, which has two at least.
_WITH_DUID, _IAID, _SHORTEST_DUID = 255, 5, 3
# Solicit, request, confirm, renew, rebind, release, decline, information-request.
_FROM_CLIENTS6 = frozenset((1, 3, 4, 5, 6, 8, 9, 11))
_DUID, _LONGEST_DUID = 1, 130


class CaptureError(ValueError):
    """What should be a capture file is none."""


@dataclass(slots=True)
class Capture:
    """Takes the packets out of a pcap file that comes in pieces."""

    _pending: bytes = b""
    _order: str = ""

    def packets(self, data: bytes) -> Iterator[bytes]:
        """Yield the packets that are whole with the next bytes of the file.

        Raises:
            CaptureError: It is no capture file, or has a packet of more than ``LONGEST`` bytes.
        """
        self._pending += data
        if not self._order:
            if len(self._pending) < _FILE_HEADER:
                return
            self._order = _byte_order(self._pending)
            self._pending = self._pending[_FILE_HEADER:]
        at = 0
        while at + _RECORD_HEADER <= len(self._pending):
            (size,) = struct.unpack_from(f"{self._order}I", self._pending, at + 8)
            if size > LONGEST:
                raise CaptureError(f"a packet of {size} bytes")
            end = at + _RECORD_HEADER + size
            if end > len(self._pending):
                break
            yield self._pending[at + _RECORD_HEADER : end]
            at = end
        self._pending = self._pending[at:]


def identities(packet: bytes) -> frozenset[str]:
    """Return by what a DHCP client makes itself known in an Ethernet packet; empty for others.

    A server tells clients apart by the client identifier, and without one by the hardware's
    address (RFC 2131, 4.2). The DUID in an identifier is one of its own: DHCPv6 sends it, too.
    """
    if len(packet) < _ETHERNET:
        return frozenset()
    kind = int.from_bytes(packet[12:14], "big")
    if kind == _IPV4:
        return _of_dhcp(_udp4(packet[_ETHERNET:]))
    if kind == _IPV6:
        return _of_dhcp6(_udp6(packet[_ETHERNET:]))
    return frozenset()


def _byte_order(header: bytes) -> str:
    for order in "<>":
        if struct.unpack_from(f"{order}I", header)[0] == _MAGIC:
            return order
    raise CaptureError("no capture file")


def _udp4(packet: bytes) -> bytes:
    """Return what an IPv4 packet has for DHCP's server; empty for anything else."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != _UDP:  # noqa: PLR2004 -- RFC 791's
        return b""
    header, total = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4], "big")
    is_whole = 20 <= header <= total <= len(packet)  # noqa: PLR2004 -- RFC 791's
    if not is_whole or int.from_bytes(packet[6:8], "big") & _FRAGMENT:
        return b""
    return _payload(packet[header:total], _DHCP)


def _udp6(packet: bytes) -> bytes:
    """Return what an IPv6 packet has for DHCPv6's server; empty for anything else."""
    if len(packet) < _IPV6_HEADER or packet[0] >> 4 != 6 or packet[6] != _UDP:  # noqa: PLR2004
        return b""
    end = _IPV6_HEADER + int.from_bytes(packet[4:6], "big")
    return _payload(packet[_IPV6_HEADER:end], _DHCP6) if end <= len(packet) else b""


def _payload(datagram: bytes, ports: tuple[int, int]) -> bytes:
    if len(datagram) < _UDP_HEADER:
        return b""
    source, destination, length = struct.unpack_from(">HHH", datagram)
    is_it = (source, destination) == ports and _UDP_HEADER <= length <= len(datagram)
    return datagram[_UDP_HEADER:length] if is_it else b""


def _of_dhcp(message: bytes) -> frozenset[str]:
    if len(message) < _OPTIONS or message[0] != _REQUEST or message[236:240] != _COOKIE:
        return frozenset()
    options = _options(message[_OPTIONS:])
    if options.get(_KIND) not in {_DISCOVERING, _REQUESTING}:
        return frozenset()
    client = options.get(_CLIENT_ID, b"")
    # RFC 2132, 9.14: at least two bytes.
    if len(client) > 1:
        found = {f"client id {client.hex(':')}"}
        if client[0] == _WITH_DUID and len(client) >= _IAID + _SHORTEST_DUID:
            found.add(f"DUID {client[_IAID:].hex(':')}")
        return frozenset(found)
    hardware = message[_HARDWARE : _HARDWARE + min(message[2], _LONGEST_HARDWARE)]
    return frozenset({f"hardware address {hardware.hex(':')}"} if any(hardware) else ())


def _options(data: bytes) -> dict[int, bytes]:
    """Return the options; those that come in parts are joined (RFC 3396)."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        start = at + 2
        if start > len(data) or start + data[at + 1] > len(data):
            return {}
        value = data[start : start + data[at + 1]]
        found[data[at]] = found.get(data[at], b"") + value
        at = start + len(value)
    return found


def _of_dhcp6(message: bytes) -> frozenset[str]:
    if len(message) < 4 or message[0] not in _FROM_CLIENTS6:  # noqa: PLR2004 -- RFC 8415's
        return frozenset()
    at = 4
    while at + 4 <= len(message):
        code, length = struct.unpack_from(">HH", message, at)
        value = message[at + 4 : at + 4 + length]
        if len(value) < length:
            break
        if code == _DUID and _SHORTEST_DUID <= length <= _LONGEST_DUID:
            return frozenset({f"DUID {value.hex(':')}"})
        at += 4 + length
    return frozenset()
