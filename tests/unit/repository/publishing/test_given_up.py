"""What publishers make of a history with a record that was damaged and given up."""

import hashlib

import pytest

from lago_images.errors import RepositoryError
from lago_images.repository.publishing import releasing
from lago_images.repository.publishing.releasing import Decision
from lago_images.repository.records.layout import PUBLISHED
from lago_images.repository.records.loss import AcceptedLoss
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import PublishedCommit
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import layer_on, manifest, overwrite, put, put_release, release

DAMAGED = b"{"
BASE = manifest(build_id="b1")
LAYER = manifest("layer", "l1", base=layer_on(BASE))


@pytest.fixture
def store(tmp_path):
    """The first revision, and above it a record that nobody can read."""
    store = DirectoryStore(path=tmp_path / "repo")
    put_release(store, release(1, BASE, commit="c0"))
    put(store, "releases/debian-12/x86_64/2.json", DAMAGED)
    return store


def give_up(store, data=DAMAGED):
    loss = AcceptedLoss(
        name="debian-12",
        arch="x86_64",
        first=2,
        last=2,
        sha256=hashlib.sha256(data).hexdigest(),
        reason="no copy is left",
        accepted=1_700_000_000,
        by=Released(commit="c1"),
    )
    put(store, str(loss.key), loss.to_json())


def create(store):
    made = release(1, manifest(build_id="b9"), commit="c1")
    return releasing.create(store, "debian-12", "x86_64", lambda _history: made)


def test_a_damaged_record_stops_a_publication_until_its_very_bytes_are_given_up(store):
    for data in (None, b"{}"):
        if data:
            give_up(store, data)
        with pytest.raises(RepositoryError, match=r"2\.json is not a release"):
            create(store)
    overwrite(store, "releases/debian-12/x86_64/lost/2-2.json", b"?")
    with pytest.raises(RepositoryError, match=r"2\.json is not a release"):
        create(store)


def test_the_next_revision_is_above_a_record_that_was_given_up(store):
    give_up(store)
    assert create(store).revision == 3


def test_nothing_before_a_loss_is_a_base_again(store):
    give_up(store)
    with pytest.raises(RepositoryError, match="which is not offered"):
        releasing._bound_base(store, LAYER)
    put_release(store, release(3, BASE, commit="c0"))
    assert releasing._bound_base(store, LAYER).revision == 3


@pytest.mark.parametrize("is_lost", [True, False])
def test_nothing_before_a_loss_is_released_again_for_a_newer_commit(store, is_lost):
    if is_lost:
        give_up(store)
    else:
        whole = release(2, manifest(build_id="b2"), commit="c0")
        overwrite(store, str(whole.key), whole.to_json())
    created = release(3, manifest(build_id="b3", fingerprint="sha256:f3"), commit="c1")
    put_release(store, created)
    put(store, PUBLISHED, PublishedCommit.to_json("c2"))
    decision = Decision(
        released=Released(commit="c1"),
        known_revision=2,
        is_ancestor=lambda one, other: one <= other,
        now=lambda: 1_700_000_100.0,
    )
    again = releasing._give_way(store, created, decision, {})
    assert (again is None) == is_lost
    if again:
        assert (again.revision, again.build.partition(".")[0]) == (4, "b2")
