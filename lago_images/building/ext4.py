"""Write a folder as an ext4 file system into a disk: the same files give the same bytes.

No mount, no root. mke2fs of e2fsprogs 1.47 meets names in the order of their bytes; one that takes
them as the host's file system has them gives the same bytes on the same file system only.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import BuildError
from lago_images.host.process import Runner

BLOCK = 4096
# Named one by one: mke2fs.conf differs between hosts, and GRUB 2.06 cannot read
# metadata_csum_seed or orphan_file, which newer e2fsprogs turn on. unpack_ext4 knows no others.
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
# In place of the host's /etc/mke2fs.conf, whose administrator may like other sizes. As Debian's.
_CONFIG = """\
[defaults]
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
	}
	small = {
		inode_ratio = 4096
	}
	big = {
		inode_ratio = 32768
	}
	huge = {
		inode_ratio = 65536
	}
"""
_CONFIG_NAME = "mke2fs.conf"
# What debugfs's ea_list and ea_get -x print: a request, and of each attribute its bytes, which
# ea_list leaves out where they are many.
_ASKED = re.compile(r"^debugfs: ea_\w+ .*<(\d+)>")
_ATTRIBUTE = re.compile(r"^ *([A-Za-z0-9_.-]+) \(\d+\)(?: = (.*))?$")
# Bytes of a value that a request of debugfs has room for.
_LONGEST_VALUE = 1024
_SUPERBLOCK = re.compile(r"^  (?:Primary|Backup) superblock at (\d+),", re.MULTILINE)
# Prints the time of the newest file that is older than $1 and newer than $2, in seconds. Without -P
# a shell goes by a path of its own making, through folders that only who builds may enter.
_SETTLE = """
set -eu
cd -P "$0"
epoch=$(find . -xdev ! -newermt "@$1" -printf '%T@\\n' | sort -n | tail -n 1)
epoch=${epoch%%.*}
[ "${epoch:-0}" -gt "$2" ] || epoch=$2
find . -xdev -newermt "@$1" -exec touch --no-dereference --date="@$epoch" {} +
echo "$epoch"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a file system on a disk, and its identifiers: all that is not of its files.

    Attributes:
        start: Its first byte on the disk.
        size: Its bytes.
        hash_seed: What its folders' order is made with.
    """

    start: int
    size: int
    uuid: str
    label: str
    hash_seed: str


def settle_times(
    tree: Path | str,
    start_time: float,
    least: int,
    runner: Runner,
    *,
    prefix: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> int:
    """Give all files written since ``start_time`` the time of the newest one from before it.

    What packages bring keeps its times, which do not change from one build to the next.

    Args:
        tree: The folder; ``cwd`` is where a relative one begins.
        start_time: Seconds since the epoch, by the clock of this host.
        least: Seconds since the epoch; where no file is newer, they get this time.
        runner: Starts the tools.
        prefix: A command's prefix under which the files may be changed.
        cwd: Where to run them.

    Returns:
        That time, in seconds since the epoch.
    """
    # Files may be dated a moment earlier than a clock says: the kernel's is coarse.
    argv = [*prefix, "sh", "-c", _SETTLE, str(tree), str(int(start_time) - 1), str(least)]
    return int(runner.capture(argv, cwd=cwd, timeout=None, doing="setting the files' times"))


def write_ext4(
    tree: str,
    disk: str,
    place: Place,
    folder: Path,
    epoch: int,
    runner: Runner,
    *,
    prefix: tuple[str, ...] = (),
) -> tuple[int, ...]:
    """Write a folder into a disk, as a file system.

    Args:
        tree: The folder.
        disk: The disk's file, which is there.
        place: Where on the disk.
        folder: Where the tools are run, with room for a small file that they read.
        epoch: Seconds; the time of everything that has no time of its own.
        runner: Starts the tools.
        prefix: A command's prefix under which the folder's owners are what they will be in the
            guest.

    Returns:
        The blocks that its superblocks are in; 0 is the first one's.

    Raises:
        CommandError: It does not fit, or cannot be written.
    """
    config = folder / _CONFIG_NAME
    config.write_text(_CONFIG, encoding="utf-8")
    config.chmod(0o644)
    times = {**fixed_times(epoch), "MKE2FS_CONFIG": _CONFIG_NAME}
    variables = [f"{name}={value}" for name, value in times.items()]
    runner.run(
        [*prefix, "env", *variables, *_command(tree, disk, place)],
        cwd=folder,
        doing="writing the root file system",
    )
    config.unlink()
    return _settle_inodes(f"{disk}?offset={place.start}", folder, epoch, runner)


def fixed_times(epoch: int) -> Mapping[str, str]:
    """Return the variables by which e2fsprogs and others take a time in place of the clock's."""
    # E2FSPROGS_FAKE_TIME: e2fsprogs before 1.47.1 knows no other.
    return {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"}


def _command(tree: str, disk: str, place: Place) -> list[str]:
    # hash_seed: mke2fs makes one up otherwise, and equal files would not make equal disks.
    # fmt: off
    return [
        "mke2fs", "-q", "-F",
        "-t", "ext4",
        "-b", str(BLOCK),
        "-O", FEATURES,
        "-L", place.label,
        "-U", place.uuid,
        "-E", f"offset={place.start},root_owner=0:0,hash_seed={place.hash_seed}",
        "-d", tree,
        disk, f"{place.size // 1024}k",
    ]
    # fmt: on


def _settle_inodes(root: str, folder: Path, epoch: int, runner: Runner) -> tuple[int, ...]:
    """Give all inodes one time of change and of access: no host lets a file's be set or kept.

    And their attributes one order, which is else that of the host's file system.

    Returns the blocks that superblocks are in.
    """
    doing = "reading the file system's inodes"
    groups = runner.capture(["dumpe2fs", root], cwd=folder, doing=doing).decode()

    def ask(requests: Iterable[str], doing: str) -> str:
        answer = runner.capture(
            ["debugfs", "-w", "-f", "-", root],
            cwd=folder,
            stdin="".join(f"{each}\n" for each in requests).encode(),
            env=fixed_times(epoch),
            doing=doing,
        )
        return answer.decode(errors="replace")

    times = "set_inode_field <{}> ctime @{}\nset_inode_field <{}> atime @{}\nea_list <{}>"
    inodes = used_inodes(groups)
    listed = ask(
        (times.format(each, epoch, each, epoch, each) for each in inodes),
        "setting the files' times",
    )
    if unsorted := _unsorted(listed):
        doing = "ordering the files' attributes"
        asked = (f"ea_get -x -r <{file}> {name}" for file in unsorted for name in unsorted[file])
        values = _attributes(ask(asked, doing))
        ask(_in_order(values, unsorted, epoch), doing)
    return tuple(map(int, _SUPERBLOCK.findall(groups)))


def _unsorted(listed: str) -> dict[int, list[str]]:
    """Return the names of the attributes that are not in order, by the inode that has them."""
    found = {inode: list(values) for inode, values in _attributes(listed).items()}
    return {inode: names for inode, names in found.items() if names != sorted(names)}


def _attributes(printed: str) -> dict[int, dict[str, str]]:
    """Return what debugfs printed of attributes, by inode and name."""
    found: dict[int, dict[str, str]] = {}
    inode = 0
    for line in printed.splitlines():
        if asked := _ASKED.match(line):
            inode = int(asked[1])
        elif attribute := _ATTRIBUTE.match(line):
            found.setdefault(inode, {})[attribute[1]] = attribute[2] or ""
    return found


def _in_order(
    values: Mapping[int, Mapping[str, str]], names: Mapping[int, Sequence[str]], epoch: int
) -> Iterator[str]:
    """Yield the requests that write attributes anew, by their names; those of which all is known.

    Of others they stay as they are: the file is the same, and the disk's bytes those of one kind
    of host.
    """
    for inode, of_inode in names.items():
        try:
            known = {name: bytes.fromhex(values.get(inode, {})[name]) for name in of_inode}
        except (KeyError, ValueError):
            continue
        if max(map(len, known.values())) > _LONGEST_VALUE:
            continue
        yield from (f"ea_rm <{inode}> {name}" for name in of_inode)
        for name in sorted(known):
            value = "".join(f"\\{byte:03o}" for byte in known[name])
            yield f'ea_set -r <{inode}> {name} "{value}"'
        yield f"set_inode_field <{inode}> ctime @{epoch}"


def used_inodes(dumped: str) -> Iterator[int]:
    """Yield the inodes in use that dumpe2fs tells of: the root folder's, and those of files."""
    count = re.search(r"^Inode count: +(\d+)$", dumped, re.MULTILINE)
    first = re.search(r"^First inode: +(\d+)$", dumped, re.MULTILINE)
    if count is None or first is None:
        raise BuildError("dumpe2fs does not tell the number of inodes")
    yield 2
    end = int(first[1])
    for free in re.finditer(r"^  Free inodes:(.*)$", dumped, re.MULTILINE):
        for span in free[1].split(", "):
            low, _, high = span.strip().partition("-")
            if low:
                yield from range(end, int(low))
                end = int(high or low) + 1
    yield from range(end, int(count[1]) + 1)
