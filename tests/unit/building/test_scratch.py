"""What the folder of the work is, stays out of what is built in it."""

import os
import struct

import pytest

from lago_images.building import scratch
from tests.support.small_filesystem import run_in_small_filesystem

# linux/posix_acl_xattr.h: version 2; owner, group, another user (1234), mask, others: all rwx.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, user)
    for tag, user in ((1, 2**32 - 1), (2, 1234), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1))
)


def facts(path):
    status = path.stat()
    return status.st_mode & 0o7777, status.st_gid, os.listxattr(path)


def make(folder):
    """The facts of what is made in a folder as mmdebstrap and dpkg make it."""
    old = os.umask(0o022)
    try:
        (folder / "etc").mkdir()
        (folder / "etc/passwd").write_text("")
    finally:
        os.umask(old)
    made = [facts(folder / "etc"), facts(folder / "etc/passwd")]
    (folder / "etc/passwd").unlink()
    (folder / "etc").rmdir()
    return made


def test_scratch_folders_inherit_no_mode_group_or_acl(tmp_path):
    plain, strange = tmp_path / "plain", tmp_path / "strange"
    plain.mkdir()
    strange.mkdir()
    strange.chmod(0o2777)
    try:
        os.setxattr(strange, "system.posix_acl_default", ACL)
    except OSError:
        pytest.skip("the file system of the tests knows no ACL")
    spoilt = make(strange)
    with scratch.private(plain / "own") as own:
        expected = make(own)
    with scratch.private(strange / "own") as own:
        assert facts(own)[0] == 0o700
        assert make(own) == expected
    assert spoilt != expected
    assert expected == [(0o755, os.getegid(), []), (0o644, os.getegid(), [])]
    assert not (strange / "own").exists()


REFUSES = """
import sys
from pathlib import Path
from lago_images.building import scratch
from lago_images.errors import HostError

scratch.refuse_noexec(Path("/"))
for refuse in (scratch.refuse_noexec, scratch.refuse_nodev):
    try:
        refuse(Path(sys.argv[1]))
    except HostError as error:
        print(error.message, error.hint, sep="\\n")
"""


@pytest.mark.parametrize("option", ["noexec", "nodev"])
def test_a_folder_mounted_noexec_or_nodev_is_refused(tmp_path, option):
    work = tmp_path / "work"
    message, hint = run_in_small_filesystem(work, f"1m,{option}", REFUSES).splitlines()[:2]
    assert message.startswith(f"the file system of {work} is mounted {option}: ")
    assert hint == "set TMPDIR to a folder on a file system without that option"
