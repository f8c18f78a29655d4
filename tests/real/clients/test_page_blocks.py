"""What the pages of a published repository say of its disks and of lago, pasted by a reader."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.pages import blocks

pytestmark = pytest.mark.real


@pytest.mark.parametrize("title", ["curl and sha256sum", "qcow2, ready to use"])
def test_a_disk_is_downloaded_and_checked(small, served, user, tmp_path, title):
    text = blocks(small.folder / "catalogue/tiny.html")[title]
    user.paste(f"cd\n{text}")
    raw = tmp_path / "raw"
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", user.home / "tiny.qcow2", raw]
    subprocess.run(convert, check=True, timeout=60)
    assert raw.read_bytes() == (small.specs.root / "image-specs/files/tiny.img").read_bytes()


@pytest.mark.parametrize("page", ["catalogue/tiny.html", "index.html"])
def test_lago_gets_the_template_that_the_init_file_names(
    small, served, client, user, tmp_path, page
):
    written, _, last = blocks(small.folder / page)["lago"].rpartition("\n")
    user.paste(f"cd\n{written}")
    name = re.search(r"template_name: (\S+)", (user.home / "LagoInitFile").read_text())[1]
    repository = last.removeprefix("lago init --template-repo-path ")
    got = client.download(repository, tmp_path / "store", name)
    source = small.specs.root / "image-specs/files/tiny.img"
    assert Path(got["path"]).read_bytes() == source.read_bytes()
