"""What we render, read by virt-builder's own parser and by virt-index-validate."""

import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings

from lago_images.repository.records.state import read
from lago_images.repository.rendering import index
from lago_images.storage.directory.store import DirectoryStore
from tests.clients.virt_builder import VirtBuilder, VirtBuilderError
from tests.support.builders import manifest, publish_by_hand
from tests.support.strategies import states
from tests.tools import need

pytestmark = pytest.mark.real
need("virt-builder", "virt-index-validate")


@pytest.fixture
def judge(tmp_path):
    return Judge(tmp_path)


class Judge:
    """Both of guestfs-tools' readers of one index."""

    def __init__(self, folder):
        self.path = folder / "index"
        self.client = VirtBuilder(home=folder / "user", appliance={})
        self.client.add_source("r", f"file://{self.path}")

    def read(self, data):
        self.path.write_bytes(data)
        subprocess.run(["virt-index-validate", self.path], check=True, capture_output=True)
        return self.client.list("--no-cache")


def examples(count):
    """A batch of generated states."""
    found = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(states())
    def collect(state):
        found.append(state)

    collect()
    return found


def test_virt_builder_reads_generated_indexes_back(judge):
    entries = []
    for number, state in enumerate(examples(60)):
        ours, problems = index.parse(index.render(state))
        assert problems == []
        # One index for the batch: the names must differ between its repositories.
        entries += [replace(entry, name=f"{number}-{entry.name}") for entry in ours]
    assert len(entries) > 20
    listed = judge.read(index.to_bytes(entries, mark="0" * 64))
    visible = [entry for entry in entries if entry.get("hidden") != "true"]
    assert {(t["os-version"], t["arch"], t["full-name"], t["size"]) for t in listed} == {
        (entry.name, entry.arch, entry.get("name"), int(entry.get("size"))) for entry in visible
    }


def test_virt_builder_reads_an_empty_index(judge, tmp_path):
    assert judge.read(index.render(read(DirectoryStore(path=tmp_path / "none")))) == []


def test_virt_builder_reads_every_field(judge, tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    more = {"aliases": "bookworm,stable", "notes": "Ours.", "notes[fr]": "À nous."}
    publish_by_hand(store, manifest(properties={**manifest().properties, **more}))
    (listed,) = judge.read(index.render(read(store)))
    assert listed["full-name"] == "Debian® 12 (bookworm)"
    assert listed["aliases"] == ["bookworm", "stable"]
    assert listed["notes"]["C"] == "Ours."


FAULTS = {
    "a field twice": lambda text: text.replace("format=qcow2", "format=qcow2\nformat=raw"),
    "no arch": lambda text: text.replace("arch=x86_64\n", ""),
    "no size": lambda text: text.replace("size=2147483648\n", "", 1),
    "an absolute file": lambda text: text.replace("file=images", "file=/images"),
    "a stray line": lambda text: text.replace("format=", "format "),
    "a carriage return": lambda text: text.replace("\n[debian-12]\n", "\n[debian-12]\r\n"),
    "a size in words": lambda text: text.replace("size=2147483648", "size=big", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fields_that_virt_builder_refuses_are_refused(judge, tmp_path, fault):
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, manifest())
    text = index.render(read(store)).decode()
    broken = FAULTS[fault](text).encode()
    assert broken != text.encode()
    assert index.parse(broken)[1]
    with pytest.raises((VirtBuilderError, subprocess.CalledProcessError)):
        judge.read(broken)
