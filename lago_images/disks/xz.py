"""Write one xz stream of blocks that were compressed on their own.

The format is https://tukaani.org/xz/xz-file-format.txt (1.2.0), whose section numbers the comments
give. liblzma encodes each block as a stream of its own; what is kept of it is the block's data
and its CRC64, under a header that also tells both sizes. Those sizes are what lets ``xz -T`` and
virt-builder decompress the blocks of one stream side by side.
"""

import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_SIZE = 16 * 2**20
_CRC64 = 8
_FLAGS = bytes((0, lzma.CHECK_CRC64))
# One filter, and both sizes are told (3.1.2).
_BOTH_SIZES = 0xC0

HEADER = b"\xfd7zXZ\0" + _FLAGS + zlib.crc32(_FLAGS).to_bytes(4, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block, ready to be written, with its sizes for the index (4.3).

    Attributes:
        data: Header, compressed data, padding and check.
        unpadded: Bytes of ``data`` less its padding.
        size: Bytes it decompresses to.
    """

    data: bytes
    unpadded: int
    size: int


def encode(data: bytes, level: int) -> Block:
    """Compress one block of at most ``BLOCK_SIZE`` bytes, which must not be empty.

    Args:
        data: The bytes.
        level: xz's preset, 0 to 9. A dictionary larger than the block would be of no use.
    """
    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, **_dictionary(level)}]
    stream = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)
    inner = len(HEADER)
    header = stream[inner : inner + 4 * (stream[inner] + 1)]
    compressed = _compressed_size(stream, len(header))
    start = inner + len(header)
    body = stream[start : start + _padded(compressed) + _CRC64]
    own = _block_header(header, compressed, len(data))
    return Block(data=own + body, unpadded=len(own) + compressed + _CRC64, size=len(data))


def ending(blocks: Sequence[tuple[int, int]]) -> bytes:
    """Return the index and the footer of a stream (4 and 2.1.2).

    Args:
        blocks: Of each block its unpadded size and the size of what it decompresses to.
    """
    records = b"".join(_vli(unpadded) + _vli(size) for unpadded, size in blocks)
    index = _with_crc(_pad(b"\0" + _vli(len(blocks)) + records))
    tail = (len(index) // 4 - 1).to_bytes(4, "little") + _FLAGS
    return index + zlib.crc32(tail).to_bytes(4, "little") + tail + b"YZ"


def _dictionary(level: int) -> dict[str, int]:
    # -7 to -9 differ from -6 in the dictionary alone, which would be 16, 32 and 64 MiB.
    return {"dict_size": BLOCK_SIZE} if level > lzma.PRESET_DEFAULT else {}


def _compressed_size(stream: bytes, header: int) -> int:
    # 2.1.2.2: the footer tells where the index begins; 4.3: its only record has the unpadded size.
    backward = 4 * (int.from_bytes(stream[-8:-4], "little") + 1)
    unpadded = _read_vli(stream, len(stream) - 12 - backward + 2)
    return unpadded - header - _CRC64


def _block_header(header: bytes, compressed: int, size: int) -> bytes:
    """Return the header that liblzma made (3.1), with both sizes in it."""
    # The one filter's id, the length of its properties, and the dictionary's size (5.3.1).
    fields = bytes((_BOTH_SIZES,)) + _vli(compressed) + _vli(size) + header[2:5]
    length = _padded(1 + len(fields))
    return _with_crc(bytes((length // 4,)) + fields.ljust(length - 1, b"\0"))


def _vli(number: int) -> bytes:
    """Return a number as 1.2 writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 -- the format's own
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_vli(data: bytes, at: int) -> int:
    number = shift = 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return number | data[at] << shift


def _padded(length: int) -> int:
    return -(-length // 4) * 4


def _pad(data: bytes) -> bytes:
    return data.ljust(_padded(len(data)), b"\0")


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")
