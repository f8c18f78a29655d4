"""One decoder: what is not one whole stream, or more than was allowed, is refused."""

import hashlib
import lzma
import random
import zlib

import pytest

from lago_images.disks.checksums import Checksums
from lago_images.disks.compress import compress
from lago_images.disks.decompress import PIECE, DamagedError, decompress, unpacked, xz_stream
from lago_images.disks.sparse import write_sparse
from lago_images.disks.unpack import unpack
from lago_images.errors import BuildError

MIB = 2**20
PLAIN = random.Random(1).randbytes(5000)


def pieces(stream, cut):
    return [stream[i : i + cut] for i in range(0, len(stream), cut)]


@pytest.fixture
def stream(tmp_path):
    (tmp_path / "disk").write_bytes(PLAIN)
    return b"".join(compress(tmp_path / "disk", level=0, threads=1))


def with_another_index(stream):
    """The same block under an index that tells another size, with checksums that fit it."""
    index = len(stream) - 12 - 4 * (int.from_bytes(stream[-8:-4], "little") + 1)
    size = stream.index(b"\x88\x27", index)  # 5000, seven bits a byte
    changed = stream[index:size] + b"\x89\x27" + stream[size + 2 : -16]
    return stream[:index] + changed + zlib.crc32(changed).to_bytes(4, "little") + stream[-12:]


HARM = {
    "truncated": (lambda s: s[:-1], "ends before"),
    "without its index": (lambda s: s[: 4 - len(s) % 4 - 40], "ends before"),
    "empty": (lambda _: b"", "ends before"),
    "flipped": (lambda s: s[:100] + bytes([s[100] ^ 1]) + s[101:], "cannot be decompressed"),
    "another index": (with_another_index, "cannot be decompressed"),
    "another stream's footer": (lambda s: s[:-12] + s[-12:-4] + b"\0\0YZ", "cannot be decompr"),
    "two streams": (lambda s: s + s, "goes on after .* virt-builder refuses"),
    "padding after it": (lambda s: s + bytes(4), "goes on after"),
    "garbage after it": (lambda s: s + b"garbage", "goes on after"),
    "other": (lambda s: b"not xz" + s, "cannot be decompressed"),
}


@pytest.mark.parametrize("name", HARM)
@pytest.mark.parametrize("cut", [7, 10**9])
def test_a_damaged_stream_leaves_no_file(tmp_path, stream, name, cut):
    harm, words = HARM[name]
    target = tmp_path / "target"
    with pytest.raises(DamagedError, match=words):
        decompress(pieces(harm(stream), cut), target, largest=MIB, label="it")
    assert not target.exists()


@pytest.mark.parametrize("name", ["truncated", "flipped", "another index", "garbage after it"])
@pytest.mark.parametrize("cut", [7, 10**9])
def test_a_damaged_base_is_refused_by_the_same_decoder(tmp_path, stream, name, cut):
    with pytest.raises(DamagedError, match=r"ends before|cannot be decompressed"):
        list(unpacked(pieces(HARM[name][0](stream), cut), largest=MIB, label="it"))
    (tmp_path / "source").write_bytes(HARM[name][0](stream))
    with pytest.raises(DamagedError, match=r"ends before|cannot be decompressed"):
        unpack(tmp_path / "source", tmp_path / "target", expected=None, label="it")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("cut", [7, 10**9])
def test_a_stream_may_hold_the_limit_and_not_a_byte_more(tmp_path, stream, cut):
    target = tmp_path / "target"
    few = pieces(stream, cut)
    with pytest.raises(DamagedError, match=r"^it holds more than 4\.9 KiB \(4999 bytes\)$"):
        decompress(few, target, largest=len(PLAIN) - 1, label="it")
    assert not target.exists()
    assert decompress(few, target, largest=len(PLAIN), label="it").size == len(PLAIN)
    assert target.read_bytes() == PLAIN


@pytest.mark.parametrize("decode", [xz_stream, unpacked])
def test_a_highly_compressed_stream_is_decoded_in_small_pieces(decode):
    """One piece of the stream stands for 64 MiB: none of them is made whole."""
    sizes = [
        len(piece)
        for piece in decode([lzma.compress(bytes(64 * MIB))], largest=64 * MIB, label="it")
    ]
    assert max(sizes) <= PIECE
    assert sum(sizes) == 64 * MIB


@pytest.mark.parametrize("decode", [xz_stream, unpacked])
def test_a_stream_with_a_large_dictionary_is_refused(decode):
    greedy = with_dictionary(2**28)
    with pytest.raises(DamagedError, match="Memory usage limit") as caught:
        list(decode([greedy], largest=MIB, label="it"))
    assert caught.value.hint == "at most 128 MiB are given to it: compress it with xz -9 or less"


def with_dictionary(size):
    """A stream whose header asks for it: an encoder that really used it would need ten times that.

    The size is a power of two. 3.1 and 5.3.1 of the xz format: a block's header of 12 bytes.
    """
    header = bytes((2, 0, 0x21, 1, 2 * (size.bit_length() - 13), 0, 0, 0))
    usual = lzma.compress(PLAIN)
    return usual[:12] + header + zlib.crc32(header).to_bytes(4, "little") + usual[24:]


def test_a_stream_of_the_largest_preset_is_accepted():
    """``xz --best``, as the tool before this one compressed, has a dictionary of 64 MiB."""
    best = with_dictionary(2**26)
    assert b"".join(xz_stream([best], largest=MIB, label="it")) == PLAIN


def test_checksums_are_of_both_streams():
    sums = Checksums()
    assert b"".join(sums.of_disk([b"di", b"sk"])) == b"disk"
    assert b"".join(sums.of_stream([b"stre", b"am"])) == b"stream"
    digests = sums.digests
    assert (digests.size, digests.compressed_size) == (4, 6)
    assert digests.sha1 == hashlib.sha1(b"disk").hexdigest()
    assert digests.sha256 == hashlib.sha256(b"stream").hexdigest()
    assert digests.sha512 == hashlib.sha512(b"stream").hexdigest()


def test_an_existing_file_is_not_overwritten(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        decompress([], target, largest=MIB, label="it")
    assert target.read_bytes() == b"mine"


def test_writing_a_disk_leaves_the_reserve_free(tmp_path, monkeypatch):
    monkeypatch.setattr("lago_images.host.space.free", lambda _folder: 3 * MIB)
    target, zeros, data = tmp_path / "target", bytes(MIB), b"\1" * MIB
    with pytest.raises(BuildError, match=r"^it does not fit into .* where 3\.0 MiB \(3145728 "):
        write_sparse([data, data, data], target, label="it", reserve=MIB)
    assert not target.exists()
    write_sparse([data, zeros, zeros, data, zeros], target, label="it", reserve=MIB)
    assert target.read_bytes() == data + zeros + zeros + data + zeros
    assert target.stat().st_blocks * 512 < 3 * MIB


def test_a_disk_that_cannot_be_written_is_reported_with_its_label(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    target = tmp_path / "target"
    monkeypatch.setattr("os.pwrite", fails)
    with pytest.raises(BuildError, match=rf"^writing {target}: No space left"):
        write_sparse([b"data"], target, label="it")
    assert not target.exists()
