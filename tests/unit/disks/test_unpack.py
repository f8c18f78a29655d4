import gzip
import hashlib
import io
import lzma
import struct
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lago_images.disks.unpack import _RESERVE, Checksum, ChecksumError, disk_format, unpack
from lago_images.errors import BuildError
from tests.tools import need

MIB = 2**20
DISK = b"boot" + bytes(3 * MIB) + b"middle" * 1000 + bytes(2 * MIB) + b"end"


def sha256(data):
    return Checksum(algorithm="sha256", digits=hashlib.sha256(data).hexdigest())


def given_file(folder, data):
    source = folder / "source"
    source.write_bytes(data)
    return source


PACKINGS = {
    "plain": lambda d: d,
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "two xz streams": lambda d: lzma.compress(d[:100]) + bytes(8) + lzma.compress(d[100:]),
    "two gzip members": lambda d: gzip.compress(d[:100]) + gzip.compress(d[100:]) + bytes(512),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_is_unpacked_with_holes(tmp_path, packing):
    data = PACKINGS[packing](DISK)
    found = unpack(given_file(tmp_path, data), tmp_path / "disk", expected=None, label="d")
    disk = tmp_path / "disk"
    assert disk.read_bytes() == DISK
    assert found == sha256(data)
    assert disk.stat().st_blocks * 512 < 4 * MIB


@given(data=st.binary(max_size=3000), packing=st.sampled_from(sorted(PACKINGS)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_unpacked_unchanged(tmp_path_factory, data, packing):
    if packing == "plain":
        data = b"x" + data
    folder = tmp_path_factory.mktemp("unpack")
    unpack(given_file(folder, PACKINGS[packing](data)), folder / "d", expected=None, label="d")
    assert (folder / "d").read_bytes() == data


@pytest.mark.parametrize("packing", ["xz", "gzip"])
@pytest.mark.parametrize("missing", [1, 10, 200])
def test_a_truncated_file_is_refused_and_leaves_no_disk(tmp_path, packing, missing):
    source = given_file(tmp_path, PACKINGS[packing](bytes(range(256)) * 5000)[:-missing])
    with pytest.raises(BuildError, match=r"ends before|damaged"):
        unpack(source, tmp_path / "disk", expected=None, label="the disk")
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_a_wrong_checksum_is_reported_before_damage(tmp_path, packing):
    good = PACKINGS[packing](DISK)
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    source = given_file(tmp_path, bytes(damaged))
    with pytest.raises(ChecksumError, match=sha256(good).digits):
        unpack(source, tmp_path / "disk", expected=sha256(good), label="d")
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("packing", ["xz", "gzip", "tar"])
def test_a_truncated_file_is_told_from_another_one(tmp_path, packing):
    good = a_tar(("a", {}), content=DISK) if packing == "tar" else PACKINGS[packing](DISK)
    sizes = {len(good) // 2: False, 600: False, 0: False, len(good): True}
    for size, is_whole in sizes.items():
        source = given_file(tmp_path, good[:size])
        with pytest.raises(ChecksumError) as caught:
            unpack(source, tmp_path / "disk", expected=sha256(b"other"), label="d")
        assert (caught.value.ending.size, caught.value.ending.is_whole) == (size, is_whole)
        says = "it is incomplete, it has" in caught.value.message
        assert says is not is_whole


def test_a_decompression_bomb_stops_at_the_free_space(tmp_path, monkeypatch):
    source = given_file(tmp_path, gzip.compress(b"\1" * (64 * MIB)))
    monkeypatch.setattr("lago_images.host.space.free", lambda _folder: _RESERVE + 8 * MIB)
    with pytest.raises(BuildError, match="does not fit"):
        unpack(source, tmp_path / "disk", expected=None, label="d")
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_a_bomb_of_zeros_stops_at_the_size_limit(tmp_path, packing):
    source = given_file(tmp_path, PACKINGS[packing](bytes(64 * MIB)))
    disk = tmp_path / "disk"
    with pytest.raises(BuildError, match=r"^d holds more than 8\.0 MiB \(8388608 bytes\)"):
        unpack(source, disk, expected=None, label="d", largest=8 * MIB)
    assert not disk.exists()
    unpack(source, disk, expected=None, label="d", largest=64 * MIB)
    assert disk.stat().st_size == 64 * MIB


def qcow2(*, backing=0, version=3, incompatible=0, encryption=0):
    first = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, MIB, encryption)
    second = struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    return (first.ljust(72, b"\0") + second).ljust(512, b"\0")


def test_formats_are_detected_by_the_header(tmp_path):
    assert disk_format(given_file(tmp_path, qcow2()), "d") == "qcow2"
    assert disk_format(given_file(tmp_path, qcow2(version=2)), "d") == "qcow2"
    assert disk_format(given_file(tmp_path, DISK), "d") == "raw"


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (qcow2(backing=104), "has a backing file"),
        (qcow2(version=2, backing=72), "has a backing file"),
        (qcow2(incompatible=4), "keeps its data in another file"),
        (qcow2(incompatible=2), "is a qcow2 that is marked as corrupt"),
        (qcow2(incompatible=32), "is a qcow2 with unknown features"),
        (qcow2(encryption=1), "is an encrypted qcow2"),
        (qcow2(version=2, encryption=2), "is an encrypted qcow2"),
        (qcow2(version=1), "is a qcow2 of version 1"),
        (qcow2()[:104] + b"\1" * 2**17, "is a qcow2 whose header has no end"),
        (b"KDMV" + bytes(508), "is VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n", "is a VMDK's descriptor"),
        (bytes(64) + b"\x7f\x10\xda\xbe" + bytes(500), "is VDI"),
        (b"WithouFreSpacExt" + bytes(500), "is a Parallels disk"),
        (b"\x04\x22\x4d\x18" + bytes(90), "is lz4"),
        (lzma.compress(DISK, lzma.FORMAT_ALONE), "is lzma"),
        (bytes(MIB) + b"conectix" + bytes(504), "is VHD"),
        (lzma.compress(lzma.compress(DISK)), "is xz inside"),
        (b"<!DOCTYPE html>", "is HTML"),
        (b"BZh9", "is bzip2"),
        (b"", "is empty"),
        (b"x", "has 1 byte, less than a sector: it is no disk"),
        (b"QFI\xfb", "ends in its header"),
    ],
)
def test_unusable_disk_images_are_refused(tmp_path, header, what):
    with pytest.raises(BuildError, match=what):
        disk_format(given_file(tmp_path, header), "the disk")


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w"])
def test_a_single_disk_in_a_tar_archive_is_extracted(tmp_path, mode):
    (tmp_path / "disk.raw").write_bytes(DISK)
    with tarfile.open(tmp_path / "archive", mode) as archive:
        archive.add(tmp_path / "disk.raw", "disk.raw")
    target = tmp_path / "disk"
    digest = unpack(tmp_path / "archive", target, expected=None, label="d", largest=len(DISK))
    assert target.read_bytes() == DISK
    # The checksum that a publisher names is of the archive.
    assert digest.digits == hashlib.sha256((tmp_path / "archive").read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["oldgnu", "gnu", "posix"])
def test_a_sparse_disk_in_a_tar_archive_keeps_its_holes(tmp_path, form):
    need("tar")
    with (tmp_path / "disk.raw").open("wb") as file:
        for mib in (3, 9, 15):
            file.seek(mib * 2**20)
            file.write(b"data" * 5000)
        file.truncate(20 * 2**20)
    argv = ["tar", f"--format={form}", "-Scf", "archive", "disk.raw"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    unpack(tmp_path / "archive", tmp_path / "disk", expected=None, label="d", largest=20 * 2**20)
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "disk.raw").read_bytes()
    assert (tmp_path / "disk").stat().st_blocks * 512 < 10 * 2**20


def a_tar(*members, content=b"x" * 1000):
    """Return a tar archive of members, each a name and what else its header says."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def with_size(archive, size):
    """Return an archive whose first header says another size."""
    header = bytearray(archive[:512])
    # GNU's numbers below zero, and those of more than eleven octal digits: base 256.
    sign = b"\xff" if size < 0 else b"\x80"
    header[124:136] = sign + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + archive[512:]


@pytest.mark.parametrize(
    ("archive", "what"),
    [
        (a_tar(("a", {}), ("b", {})), "tar archive of several files"),
        (a_tar(("a", {"type": tarfile.DIRTYPE}), ("b", {})), "does not begin with a file"),
        (a_tar(("a", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), "begin with a file"),
        (a_tar(("a", {}))[:1024], "ends before the file in its tar archive does"),
        (a_tar(("a", {}))[:600], "ends before the file in its tar archive does"),
        (with_size(a_tar(("a", {})), -1), "damaged tar archive"),
        (with_size(a_tar(("a", {})), 2**50), "holds a file of 1125899906842624 bytes"),
        # A long name of a terabyte, which is to be kept in memory.
        (with_size(a_tar(("n" * 200, {})), 2**40), "damaged tar archive"),
    ],
)
def test_other_tar_archives_are_refused_and_leave_no_disk(tmp_path, archive, what):
    source, target = given_file(tmp_path, archive), tmp_path / "disk"
    with pytest.raises(BuildError, match=what):
        unpack(source, target, expected=None, label="d")
    assert not target.exists()


def test_a_nested_archive_is_refused(tmp_path):
    source = given_file(tmp_path, a_tar(("a", {}), content=a_tar(("b", {}))))
    unpack(source, tmp_path / "disk", expected=None, label="d")
    with pytest.raises(BuildError, match="d is a tar archive inside what was unpacked"):
        disk_format(tmp_path / "disk", "d")
