"""The chain of unsigned repositories; signatures are in tests/functional/test_provenance.py."""

import io
import os
from dataclasses import replace

import pytest

from lago_images.console import Console
from lago_images.errors import RepositoryError, UsageError
from lago_images.host.process import Runner
from lago_images.repository.records.layout import INDEX, SUMS
from lago_images.repository.verifying.chain import CheckResult, Tracer
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    bound,
    copy_of,
    layer_on,
    manifest,
    overwrite,
    publish_by_hand,
    publisher,
    put,
    put_build,
    put_copy,
    put_release,
    release,
    with_qcow2,
)

BASE = manifest("base", "b0", fingerprint="sha256:f0")
LAYER = manifest("layer", "b1", base=layer_on(BASE, 1))
COPY, BASE_COPY = copy_of(LAYER), copy_of(BASE)


class NoRunner(Runner):
    def started(self, argv, **more):
        pytest.fail(f"{argv} was started")


@pytest.fixture
def store(tmp_path):
    made = DirectoryStore(path=tmp_path)
    publish_by_hand(made, BASE)
    publish_by_hand(made, LAYER, bases=[BASE])
    publisher(made).refresh()
    return made


def traced(store, name="layer", **more):
    deep = more.pop("deep", False)
    tracer = Tracer(
        store=store,
        runner=NoRunner(environ=os.environ),
        environ={},
        console=more.pop("console", Console(quiet=True)),
        deep=deep,
    )
    return tracer.trace(name, **more)


def checks(chain, link, outcome=CheckResult.VERIFIED):
    return [
        check.what
        for step in chain.steps
        for one in step.links
        if one.name == link
        for check in one.checks
        if check.outcome is outcome
    ]


def test_a_layer_is_followed_to_its_base(store):
    chain = traced(store)
    assert chain.broken == ()
    assert [(step.name, step.revision) for step in chain.steps] == [("layer", 1), ("base", 1)]
    names = [link.name for link in chain.steps[0].links]
    assert names == [
        *("commit", "fingerprint", "manifest", "base", "disk"),
        *("files", "release", "offer", "signature"),
    ]
    assert checks(chain, "base") == [
        "releases/base/x86_64/1.json releases this build with this sha256"
    ]
    assert checks(chain, "disk") == ["the size", "the size"]
    assert len(checks(chain, "disk", CheckResult.UNVERIFIED)) == 2
    assert len(checks(chain, "signature", CheckResult.UNVERIFIED)) == 2


def test_a_deep_check_reads_the_disks(store):
    chain = traced(store, deep=True)
    assert chain.broken == ()
    assert checks(chain, "disk") == ["size, sha256 and sha512, of every byte"] * 2


@pytest.mark.parametrize(
    ("key", "broken"),
    [
        (COPY.manifest, "layer 1: manifest"),
        (COPY.hash, "layer 1: files"),
        (COPY.packages, "layer 1: files"),
        (COPY.disk, "layer 1: disk"),
        (BASE_COPY.manifest, "base 1: manifest"),
        (BASE_COPY.disk, "base 1: disk"),
    ],
)
@pytest.mark.parametrize("how", ["changed", "lost"])
def test_an_object_other_than_the_released_one_breaks_its_link(store, key, broken, how):
    if how == "lost":
        store.delete([key])
    else:
        overwrite(store, key, store.get(key).data + b" ")
    assert traced(store).broken == (broken,)


def test_a_deep_check_reports_progress_for_each_disk(store, monkeypatch):
    monkeypatch.setattr("lago_images.console.PLAIN_SECONDS", 0)
    shown = io.StringIO()
    traced(store, console=Console(stream=shown))
    assert shown.getvalue() == ""
    traced(store, deep=True, console=Console(stream=shown))
    lines = shown.getvalue().splitlines()
    assert [line for line in lines if line.startswith("reading images/base/")]
    assert all("(100 %)" in line for line in lines)


def test_a_changed_byte_of_a_disk_is_found_by_a_deep_check_only(store):
    overwrite(store, BASE_COPY.disk, store.get(BASE_COPY.disk).data[:-1] + b"!")
    assert traced(store).broken == ()
    assert traced(store, deep=True).broken == ("base 1: disk",)


@pytest.fixture
def with_also(tmp_path):
    made = DirectoryStore(path=tmp_path / "also")
    publish_by_hand(made, with_qcow2(BASE))
    publisher(made).refresh()
    return made


def test_a_qcow2_is_a_link_of_its_own(with_also):
    chain = traced(with_also, "base", deep=True)
    assert chain.broken == ()
    assert checks(chain, "qcow2") == ["size, sha256, of every byte"]
    assert "that the same disk is in it: the builder is trusted with that" in checks(
        chain, "qcow2", CheckResult.UNVERIFIED
    )


def test_a_changed_qcow2_breaks_its_link(with_also):
    key = BASE_COPY.also("qcow2")
    overwrite(with_also, key, with_also.get(key).data[:-1] + b"!")
    assert traced(with_also, "base").broken == ()
    assert traced(with_also, "base", deep=True).broken == ("base 1: qcow2",)
    with_also.delete([key])
    assert traced(with_also, "base").broken == ("base 1: qcow2",)


def test_a_qcow2_that_the_sums_lack_breaks_the_offer(with_also):
    lines = with_also.get(SUMS).data.splitlines(keepends=True)
    overwrite(with_also, SUMS, b"".join(each for each in lines if b".qcow2\n" not in each))
    assert traced(with_also, "base").broken == ("base 1: offer",)


def forged(store, key, record):
    overwrite(store, key, record.to_json())


def test_a_base_of_other_bytes_breaks_the_chain(store):
    """Somebody replaced the base's record, and all that it names, by those of another build."""
    disk = replace(BASE.disk, sha256="7" * 64)
    forged(store, "releases/base/x86_64/1.json", release(1, replace(BASE, disk=disk)))
    chain = traced(store)
    assert chain.broken == ("layer 1: base",)
    assert [step.name for step in chain.steps] == ["layer"]


def test_another_build_in_place_of_the_base_breaks_the_chain(store):
    forged(store, "releases/base/x86_64/1.json", release(1, manifest("base", "b9")))
    assert traced(store).broken == ("layer 1: base",)


@pytest.mark.parametrize("how", ["lost", "garbage"])
def test_a_base_without_a_record_breaks_the_chain(store, how):
    key = "releases/base/x86_64/1.json"
    store.delete([key]) if how == "lost" else overwrite(store, key, b"garbage")
    chain = traced(store)
    assert chain.broken == ("layer 1: base",)
    assert key in checks(chain, "base", CheckResult.BROKEN)[0]


def test_records_that_name_each_other_as_base_end_the_chain(store):
    one = manifest("base", "b0", base=layer_on(LAYER, 1))
    forged(store, "releases/base/x86_64/1.json", release(1, one, base=bound(LAYER, 1)))
    assert "base 1: base" in traced(store).broken


def test_a_withdrawn_base_is_reported_and_breaks_nothing(store):
    put_release(store, release(2, None, "base", withdraws=1))
    publisher(store).refresh()
    chain = traced(store)
    assert chain.broken == ()
    assert any("was withdrawn" in what for what in checks(chain, "base", CheckResult.UNVERIFIED))
    assert any("withdrawn" in what for what in checks(chain, "offer", CheckResult.UNVERIFIED))


def test_a_copy_that_is_being_removed_breaks_nothing(store):
    put_build(store, other := manifest("layer", "b2", base=layer_on(BASE, 1)))
    put_copy(store, other)
    put_release(store, release(2, other, base=bound(BASE, 1)))
    put(store, COPY.retirement, b"{}")
    store.delete([COPY.disk, COPY.manifest, COPY.hash])
    publisher(store).refresh()
    chain = traced(store, revision=1)
    assert chain.broken == ()
    assert any("repo gc" in what for what in checks(chain, "disk", CheckResult.UNVERIFIED))


@pytest.mark.parametrize("name", [INDEX, SUMS])
@pytest.mark.parametrize("data", [b"", b"garbage"])
def test_an_index_entry_other_than_the_release_breaks_the_chain(store, name, data):
    overwrite(store, name, data)
    assert traced(store).broken == ("layer 1: offer", "base 1: offer")


def test_builds_that_are_dirty_or_outside_git_are_reported(store):
    dirty = manifest("dirty", "b1", dirty=True)
    outside = manifest("outside", "b1", commit="unknown")
    publish_by_hand(store, dirty)
    publish_by_hand(store, outside)
    publisher(store).refresh()
    for name, what in (("dirty", "differed"), ("outside", "no commit has them")):
        said = checks(traced(store, name), "commit", CheckResult.UNVERIFIED)
        assert any(what in one for one in said)


def test_an_unreadable_release_is_reported(store):
    key = "releases/layer/x86_64/1.json"
    changed = store.get(key).data.replace(b'"packages": 1', b'"packages": 2')
    overwrite(store, key, changed)
    for revision in (None, 1):
        with pytest.raises(RepositoryError, match=key):
            traced(store, revision=revision)


def test_an_unpublished_image_is_a_usage_error(store):
    put_release(store, release(2, None, "layer", withdraws=9))
    for name, revision in (("other", None), ("layer", 7), ("layer", 2)):
        with pytest.raises(UsageError):
            traced(store, name, revision=revision)
