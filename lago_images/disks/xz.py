"""Write one xz stream of blocks that were compressed on their own.

The format is https://tukaani.org/xz/xz-file-format.txt (1.2.0), whose section numbers the comments
give. liblzma encodes each block as a stream of its own, and 7-Zip all of them as one, of whose
headers most have no sizes and whose last block may be empty. What is kept is each block's data and
CRC32, under a header with both sizes: with them ``xz -T`` decompresses the blocks of one stream
side by side.
"""

import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

BLOCK_SIZE = 16 * 2**20
_CRC32 = 4
_FLAGS = bytes((0, lzma.CHECK_CRC32))
# One filter and both sizes (3.1.2).
_BOTH_SIZES = 0xC0
# LZMA2's control bytes, which xz-embedded's xz_dec_lzma2.c lists: the end of the block, chunks as
# they are, and compressed ones, which may begin with a byte of properties.
_END, _PLAIN, _COMPRESSED, _WITH_PROPERTIES = 0, (1, 2), 0x80, 0xC0
_PIECE = 2**18

MAGIC = b"\xfd7zXZ\0"
HEADER = MAGIC + _FLAGS + zlib.crc32(_FLAGS).to_bytes(4, "little")


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


def encode(data: bytes, level: int, check: Callable[[], None] = lambda: None) -> Block:
    """Compress one block of at most ``BLOCK_SIZE`` bytes, which must not be empty.

    Args:
        data: The bytes.
        level: xz's preset, 0 to 9. A dictionary larger than the block would be of no use.
        check: Called now and then; what it raises ends the work.
    """
    filters: list[dict[str, int]] = [{"id": lzma.FILTER_LZMA2, "preset": level}]
    if level > lzma.PRESET_DEFAULT:
        # -7 to -9 differ from -6 in the dictionary alone, which would be 16, 32 and 64 MiB.
        filters[0]["dict_size"] = BLOCK_SIZE
    encoder = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    parts = []
    for start in range(0, len(data), _PIECE):
        check()
        parts.append(encoder.compress(data[start : start + _PIECE]))
    stream = b"".join((*parts, encoder.flush()))
    inner = len(HEADER)
    header = stream[inner : inner + 4 * (stream[inner] + 1)]
    compressed = _compressed_size(stream, len(header))
    start = inner + len(header)
    crc = stream[start + _padded(compressed) :][:_CRC32]
    return _block(header[2:5], stream[start : start + compressed], crc, len(data))


def blocks_of(stream: Iterable[bytes]) -> Iterator[Block]:
    """Take the blocks out of a stream of one LZMA2 filter, as 7-Zip writes it; empty ones are left.

    Raises:
        ValueError: It ends early, or is another.
    """
    reader = _Reader(stream)
    if reader.take(len(HEADER)) != HEADER:
        raise ValueError("no xz stream with CRC32")
    # A zero in place of a block header's length begins the index (4.1).
    while length := reader.take(1)[0]:
        header = reader.take(4 * length + 3)
        if header[0] & ~_BOTH_SIZES:
            raise ValueError("a block with several filters")
        at = 1
        for flag in (0x40, 0x80):
            while header[0] & flag and header[at] & 0x80:
                at += 1
            at += bool(header[0] & flag)
        data, size = _lzma2(reader)
        reader.take(_padded(len(data)) - len(data))
        crc = reader.take(_CRC32)
        if size:
            yield _block(header[at : at + 3], data, crc, size)
    # To its end: 7-Zip fails if its pipe is closed while it writes.
    for _ in reader.rest():
        pass


class _Reader:
    """Read bytes in given numbers of pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return so many bytes; raises ``ValueError`` where there are fewer."""
        while len(self._buffer) < size:
            piece = next(self._pieces, b"")
            if not piece:
                raise ValueError("the stream ends early")
            self._buffer = memoryview(bytes(self._buffer) + piece)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(data)

    def rest(self) -> Iterator[bytes]:
        """Return what nobody took yet."""
        return self._pieces


def _lzma2(reader: _Reader) -> tuple[bytes, int]:
    """Read a block's chunks to their end; return them, and the bytes that they decompress to."""
    data, size = bytearray(), 0
    while control := reader.take(1):
        data += control
        if control[0] == _END:
            break
        if control[0] >= _COMPRESSED:
            sizes = reader.take(4 + (control[0] >= _WITH_PROPERTIES))
            # The highest five bits of this size are in the control byte.
            size += ((control[0] & 0x1F) << 16) + int.from_bytes(sizes[:2], "big") + 1
            length = int.from_bytes(sizes[2:4], "big") + 1
        elif control[0] in _PLAIN:
            sizes = reader.take(2)
            length = int.from_bytes(sizes, "big") + 1
            size += length
        else:
            raise ValueError(f"an unknown LZMA2 chunk, {control[0]:#x}")
        data += sizes + reader.take(length)
    return bytes(data), size


def _block(lzma2: bytes, data: bytes, crc: bytes, size: int) -> Block:
    """Put a block together (3): ``lzma2`` is its filter's id, the properties' length, and they."""
    fields = bytes((_BOTH_SIZES,)) + _vli(len(data)) + _vli(size) + lzma2
    length = _padded(1 + len(fields))
    header = _with_crc(bytes((length // 4,)) + fields.ljust(length - 1, b"\0"))
    whole = header + data.ljust(_padded(len(data)), b"\0") + crc
    return Block(data=whole, unpadded=len(header) + len(data) + _CRC32, size=size)


def ending(blocks: Sequence[tuple[int, int]]) -> bytes:
    """Return the index and the footer of a stream (4 and 2.1.2).

    Args:
        blocks: Of each block its unpadded size and the size of what it decompresses to.
    """
    records = b"".join(_vli(unpadded) + _vli(size) for unpadded, size in blocks)
    body = b"\0" + _vli(len(blocks)) + records
    index = _with_crc(body.ljust(_padded(len(body)), b"\0"))
    tail = (len(index) // 4 - 1).to_bytes(4, "little") + _FLAGS
    return index + zlib.crc32(tail).to_bytes(4, "little") + tail + b"YZ"


def _compressed_size(stream: bytes, header: int) -> int:
    # 2.1.2.2: the footer tells where the index begins; 4.3: its only record has the unpadded size.
    backward = 4 * (int.from_bytes(stream[-8:-4], "little") + 1)
    unpadded = _read_vli(stream, len(stream) - 12 - backward + 2)
    return unpadded - header - _CRC32


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


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")
