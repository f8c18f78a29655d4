"""Records that a loss is accepted: what is written, believed, and what of a loss they cover."""

import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.errors import RepositoryError
from lago_images.repository.records.gaps import Gap
from lago_images.repository.records.layout import LossKey, ReleaseKey, loss_key
from lago_images.repository.records.loss import (
    AcceptedLoss,
    accepted_losses,
    covers,
    is_given_up,
)
from lago_images.repository.records.release import Released
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import overwrite, put

NUMBER = st.integers(1, 10**18 - 1)
LOSS = AcceptedLoss(
    name="debian-12",
    arch="x86_64",
    first=3,
    last=3,
    sha256="0" * 64,
    reason="no copy is left",
    accepted=1_700_000_000,
    by=Released(commit="c1", actor="alice"),
)
WRONG = {
    "name": ["", "../x", 7, None],
    "arch": ["", "x/y", 7, None],
    "first": [0, -1, "3", None, 1.5],
    "last": [0, -1, "3", None, 1.5],
    "sha256": ["", "x" * 64, 7],
    "reason": [7, None, "\ud800"],
    "accepted": [-1, "soon", None],
    "by": [7, "alice", None, []],
}


@given(NUMBER, NUMBER)
def test_a_record_is_read_as_it_was_written_by_its_key(one, other):
    first, last = sorted((one, other))
    made = replace(LOSS, first=first, last=last, sha256=None)
    assert AcceptedLoss.parse(made.to_json(), made.key) == made
    assert loss_key(str(made.key)) == made.key


@pytest.mark.parametrize(
    "key",
    [
        "releases/a/x/lost/4-3.json",
        "releases/a/x/lost/0-3.json",
        "releases/a/x/lost/3.json",
        "releases/a/lost/3-3.json",
        "releases/a/x/lost/3-3.json.json",
    ],
)
def test_another_key_names_none(key):
    assert loss_key(key) is None


def test_every_field_is_tested_with_invalid_values():
    assert {each.name for each in fields(AcceptedLoss)} == WRONG.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_an_invalid_field_is_refused(name, value):
    plain = {**json.loads(LOSS.to_json()), name: value}
    with pytest.raises(RepositoryError, match=f"{LOSS.key} is not a record of an accepted loss"):
        AcceptedLoss.parse(json.dumps(plain).encode(), LOSS.key)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"last": 4}, "it is the record releases/debian-12/x86_64/lost/3-4.json"),
        ({"first": 2, "last": 3}, "about several records"),
        ({"reason": "  "}, "it has no reason"),
    ],
)
def test_parts_that_do_not_agree_are_refused(changes, why):
    with pytest.raises(RepositoryError, match=why):
        AcceptedLoss.parse(replace(LOSS, **changes).to_json(), LOSS.key)


def test_what_is_accepted_covers_what_is_in_it_of_the_same_image():
    accepted = [LossKey(name="a", arch="x", first=3, last=5)]
    assert covers(accepted, Gap(name="a", arch="x", first=3, last=5)) == accepted[0]
    # Some of them were found again.
    assert covers(accepted, Gap(name="a", arch="x", first=4, last=4))
    assert covers(accepted, ReleaseKey(name="a", arch="x", revision=5))
    assert not covers(accepted, Gap(name="a", arch="x", first=3, last=6))
    assert not covers(accepted, Gap(name="a", arch="y", first=3, last=5))
    assert not covers(accepted, ReleaseKey(name="b", arch="x", revision=3))


DAMAGED = ReleaseKey(name="debian-12", arch="x86_64", revision=3)


@pytest.fixture
def store(tmp_path):
    """A damaged record, and its acceptance."""
    store = DirectoryStore(path=tmp_path / "repo")
    put(store, str(DAMAGED), b"{")
    made = replace(LOSS, sha256=hashlib.sha256(b"{").hexdigest())
    put(store, str(LOSS.key), made.to_json())
    return store


def accepted(store):
    return accepted_losses(store, [stat.key for stat in store.list()], [DAMAGED])


def test_a_damaged_record_is_given_up_by_its_very_bytes(store):
    assert accepted(store) == {LOSS.key}
    assert is_given_up(store, DAMAGED, [LOSS.key], b"{")
    assert not is_given_up(store, DAMAGED, [LOSS.key], b"[")
    assert not is_given_up(store, DAMAGED, [])
    overwrite(store, str(DAMAGED), b"[")
    assert accepted(store) == frozenset()


def test_a_record_without_a_byte_is_given_up_like_any_other(store):
    overwrite(store, str(DAMAGED), b"")
    empty = replace(LOSS, sha256=hashlib.sha256(b"").hexdigest())
    overwrite(store, str(LOSS.key), empty.to_json())
    assert accepted(store) == {LOSS.key}
    assert is_given_up(store, DAMAGED, [LOSS.key], b"")


def test_what_cannot_be_read_accepts_no_damaged_record(store):
    overwrite(store, str(LOSS.key), b"?")
    assert accepted(store) == frozenset()
    store.delete([str(LOSS.key)])
    assert not is_given_up(store, DAMAGED, [LOSS.key])
    # A missing record is no damaged one: its acceptance is believed by its name.
    put(store, str(LOSS.key), replace(LOSS, sha256=None).to_json())
    assert accepted(store) == frozenset()
    assert accepted_losses(store, [str(LOSS.key)], []) == {LOSS.key}
