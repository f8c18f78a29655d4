"""What is in a disk's root file system, told file by file."""

from lago_images.building.comparing.files import differing
from lago_images.building.comparing.tree import File, read_files

files = read_files


def differences(one: dict[str, File], other: dict[str, File]) -> list[str]:
    """A line for each file that is not the same in both; their times are left out."""
    return [
        f"{each.path}: {', '.join(each.what)}" for each in differing(one, other, with_times=False)
    ]
