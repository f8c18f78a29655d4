"""By what a guest's DHCP clients make themselves known, from packets made by hand."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.boot.dhcp_packets import LONGEST, Capture, CaptureError, identities

MAC = bytes.fromhex("525400123401")
DUID = bytes.fromhex("0001000127a5b2c3525400123401")
HARDWARE = "hardware address 52:54:00:12:34:01"


def option(code, value):
    return bytes((code, len(value))) + value


def dhcp(*options, kind=1, op=1, mac=MAC, length=6, cookie=b"\x63\x82\x53\x63", end=b"\xff"):
    header = struct.pack(">BBBBIHH", op, 1, length, 0, 7, 0, 0) + bytes(16)
    hardware = mac.ljust(16, b"\0")
    return (
        header
        + hardware
        + bytes(192)
        + cookie
        + option(53, bytes((kind,)))
        + b"".join(options)
        + end
    )


def udp(payload, ports=(68, 67), length=None):
    size = 8 + len(payload) if length is None else length
    return struct.pack(">HHHH", *ports, size, 0) + payload


def ipv4(datagram, *, protocol=17, words=5, fragment=0, total=None, version=4):
    size = 4 * words + len(datagram) if total is None else total
    first = struct.pack(">BBHHHBBH", version << 4 | words, 0, size, 0, fragment, 64, protocol, 0)
    return b"\xff" * 6 + MAC + b"\x08\x00" + (first + bytes(8)).ljust(4 * words, b"\0") + datagram


def ipv6(datagram, *, header=17, length=None):
    size = len(datagram) if length is None else length
    first = struct.pack(">IHBB", 6 << 28, size, header, 1) + bytes(32)
    return b"\x33\x33\x00\x01\x00\x02" + MAC + b"\x86\xdd" + first + datagram


def over4(message):
    return ipv4(udp(message))


def over6(*options, kind=11, ports=(546, 547)):
    return ipv6(udp(bytes((kind, 1, 2, 3)) + b"".join(options), ports))


def option6(code, value, length=None):
    return struct.pack(">HH", code, len(value) if length is None else length) + value


@pytest.mark.parametrize(
    ("packet", "names"),
    [
        (over4(dhcp()), {HARDWARE}),
        (over4(dhcp(kind=3)), {HARDWARE}),
        (over4(dhcp(option(61, b"\x01" + MAC))), {"client id 01:52:54:00:12:34:01"}),
        (over4(dhcp(b"\0\0", option(61, b"\x00vm"), kind=3)), {"client id 00:76:6d"}),
        (
            over4(dhcp(option(61, b"\xff\x00\x12\x34\x01" + DUID))),
            {f"client id {(b'%c' % 255 + MAC[2:] + DUID).hex(':')}", f"DUID {DUID.hex(':')}"},
        ),
        # In two parts.
        (over4(dhcp(option(61, b"\x01\x02"), option(61, b"\x03"))), {"client id 01:02:03"}),
        # Too short for an identifier.
        (over4(dhcp(option(61, b"\x01"))), {HARDWARE}),
        (over4(dhcp(option(61, b""))), {HARDWARE}),
        # An IAID without a DUID.
        (over4(dhcp(option(61, b"\xff\0\0\0\1"))), {"client id ff:00:00:00:01"}),
        (over4(dhcp(length=255)), {f"hardware address {MAC.ljust(16, bytes(1)).hex(':')}"}),
        (ipv4(udp(dhcp()), words=15), {HARDWARE}),
        # Ethernet's padding.
        (over4(dhcp()) + bytes(18), {HARDWARE}),
        (over6(option6(8, b"\0\0"), option6(1, DUID)), {f"DUID {DUID.hex(':')}"}),
        (over6(option6(1, DUID), kind=1), {f"DUID {DUID.hex(':')}"}),
    ],
)
def test_a_client_is_known_by(packet, names):
    assert identities(packet) == names


WHOLE = dhcp(option(61, b"\x01" + MAC))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        MAC * 2,
        MAC * 2 + b"\x08\x00",
        MAC * 2 + b"\x08\x06" + bytes(28),
        ipv4(udp(WHOLE), protocol=6),
        ipv4(udp(WHOLE), version=6),
        ipv4(udp(WHOLE), words=4),
        ipv4(udp(WHOLE), fragment=0x2000),
        ipv4(udp(WHOLE), fragment=1),
        ipv4(udp(WHOLE), total=19),
        ipv4(udp(WHOLE), total=2**16 - 1),
        ipv4(udp(WHOLE), total=24),
        ipv4(udp(WHOLE, ports=(67, 68))),
        ipv4(udp(WHOLE, ports=(68, 69))),
        ipv4(udp(WHOLE, length=7)),
        ipv4(udp(WHOLE, length=2**16 - 1)),
        ipv4(udp(WHOLE, length=200)),
        over4(dhcp(op=2)),
        over4(dhcp(cookie=b"bootp")),
        # Offer, release and inform.
        over4(dhcp(kind=2)),
        over4(dhcp(kind=7)),
        over4(dhcp(kind=8)),
        over4(dhcp(option(53, b"\x01"))),
        over4(dhcp(length=0)),
        over4(dhcp(mac=bytes(6))),
        # An option that goes on after the message, or has no length.
        over4(dhcp(b"\x3d\x0a\x01\x02", end=b"")),
        over4(dhcp(b"\x3d", end=b"")),
        over6(option6(1, DUID), kind=7),
        over6(option6(1, DUID), ports=(547, 546)),
        over6(option6(1, DUID, length=400)),
        over6(option6(1, b"\0\1")),
        over6(option6(1, bytes(131))),
        over6(b"\0\1\0"),
        over6(option6(8, b"\0\0")),
        ipv6(udp(b"\x0b", (546, 547))),
        ipv6(udp(b"\x0b\0\0\0" + option6(1, DUID), (546, 547)), header=0),
        ipv6(udp(b"\x0b\0\0\0" + option6(1, DUID), (546, 547)), length=2**16 - 1),
        ipv6(udp(b"\x0b\0\0\0" + option6(1, DUID), (546, 547)), length=4),
    ],
)
def test_other_packets_tell_nothing(packet):
    assert identities(packet) == frozenset()


@pytest.mark.parametrize("packet", [over4(WHOLE), over6(option6(1, DUID))])
def test_a_packet_that_is_cut_off_anywhere_tells_nothing(packet):
    assert all(identities(packet[:end]) == frozenset() for end in range(len(packet)))


@given(
    st.sampled_from([over4(WHOLE), over6(option6(1, DUID))]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=5),
)
def test_any_bytes_are_read_without_an_error(packet, changes):
    data = bytearray(packet)
    for at, value in changes:
        data[at % len(data)] = value
    assert all(name.isprintable() and len(name) < 1000 for name in identities(bytes(data)))


def capture(*packets, order="<", magic=0xA1B2C3D4):
    header = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, LONGEST, 1)
    records = [struct.pack(f"{order}IIII", 0, 0, len(each), len(each)) + each for each in packets]
    return header + b"".join(records)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_packets_are_taken_out_of_a_capture_in_pieces(order, size):
    packets = [b"", b"x", bytes(LONGEST), over4(dhcp())]
    data, taken = capture(*packets, order=order), Capture()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [each for piece in pieces for each in taken.packets(piece)] == packets


def test_a_packet_that_is_not_whole_is_waited_for():
    data, taken = capture(b"first", b"second"), Capture()
    assert list(taken.packets(data[:-1])) == [b"first"]
    assert list(taken.packets(data[-1:])) == [b"second"]


@pytest.mark.parametrize(
    "data", [b"no capture file at all, no", capture(bytes(LONGEST + 1)), capture(magic=0xA1B23C4D)]
)
def test_what_is_no_capture_is_refused(data):
    with pytest.raises(CaptureError):
        list(Capture().packets(data))
