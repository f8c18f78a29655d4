"""Withdrawing and rolling back, on a directory, with what may come between."""

import pytest

from lago_images.errors import RepositoryError, UsageError
from lago_images.repository.publishing import collect, withdrawals
from lago_images.repository.publishing.copying import PublicCopy
from lago_images.repository.publishing.releasing import Decision, Verdict, release
from lago_images.repository.publishing.retention import Retention, plan
from lago_images.repository.records.release import Released
from lago_images.repository.records.standing import deciding_commit
from lago_images.repository.records.state import read, survey
from lago_images.repository.rendering.index import parse
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    copy_of,
    judged,
    layer_on,
    manifest,
    overwrite,
    publish_by_hand,
    put_build,
    put_release,
)
from tests.support.builders import publisher as open_publisher
from tests.support.builders import release as record

NAME = "debian-12"
OPERATOR = Released(commit="c7", actor="op@host")
START = 1_700_000_000


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, *(built(n) for n in (1, 2, 3)))
    return store


def built(number, name=NAME):
    return manifest(name, build_id=f"b{number}", fingerprint=f"f{number}")


def publisher(store, now=START + 60):
    return open_publisher(store, now=lambda: now)


def offered(store):
    entries, problems = parse(store.get("index").data)
    assert problems == []
    return {e.name: (e.revision, e.file.split("/")[3].partition(".")[0]) for e in entries}


def yank(store, *args, now=START + 60, **more):
    return withdrawals.yank(publisher(store, now), *args, released=OPERATOR, **more)


def rollback(store, *args, **more):
    return withdrawals.rollback(publisher(store), *args, released=OPERATOR, **more)


def publish(store, number, *, known, commit="c1"):
    if number not in (1, 2, 3):
        put_build(store, built(number))
    return release(store, judged(built(number)), decision(known, commit))


def decision(known, commit="c1"):
    return Decision(
        released=Released(commit=commit),
        known_revision=known,
        is_ancestor=lambda _old, _new: False,
        now=lambda: START + 100,
    )


def test_a_withdrawal_offers_the_previous_revision(store):
    changed = yank(store, NAME, reason="broken")
    assert (changed.about, changed.release.revision, changed.current.revision) == (3, 4, 2)
    assert changed.release.reason == "broken"
    assert offered(store) == {NAME: (2, "b2")}
    again = yank(store, NAME, reason="broken", revision=3)
    assert (again.release, again.current.revision) == (None, 2)


def test_every_revision_may_be_withdrawn(store):
    for _ in range(3):
        changed = yank(store, NAME, reason="all bad")
    assert changed.current is None
    assert offered(store) == {}
    with pytest.raises(UsageError, match="no revision that is offered"):
        yank(store, NAME, reason="more")


def test_a_named_older_revision_is_withdrawn_alone(store):
    yank(store, NAME, reason="leak", revision=1)
    assert offered(store) == {NAME: (3, "b3")}
    assert [one.revision for one in read(store).live(NAME, "x86_64")] == [2, 3]


def test_an_offered_release_with_a_lost_disk_can_be_withdrawn(store):
    store.delete([copy_of(built(3)).disk])
    changed = yank(store, NAME, reason="lost")
    assert (changed.about, changed.current.revision) == (3, 2)
    assert offered(store) == {NAME: (2, "b2")}


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_withdrawal_needs_a_reason(store, reason):
    with pytest.raises(UsageError, match="needs a reason"):
        yank(store, NAME, reason=reason)
    assert read(store).newest(NAME, "x86_64") == 3


def test_a_withdrawal_records_its_actor_and_the_withdrawn_revision(store):
    changed = yank(store, NAME, reason="broken")
    assert changed.release.released == OPERATOR
    assert deciding_commit(changed.release, read(store).history(NAME, "x86_64")) == "c1"


@pytest.mark.parametrize("revision", [4, 99])
def test_only_a_release_can_be_withdrawn(store, revision):
    yank(store, NAME, reason="x", revision=1)
    with pytest.raises(UsageError, match=f"no release {revision}"):
        yank(store, NAME, reason="x", revision=revision)


@pytest.mark.parametrize("name", ["other", "../etc", ""])
def test_an_image_that_was_never_published_is_refused(store, name):
    with pytest.raises(UsageError):
        yank(store, name, reason="x")


def test_an_image_of_several_architectures_needs_an_architecture(store):
    publish_by_hand(store, manifest(arch="aarch64", build_id="a1"))
    with pytest.raises(UsageError, match="aarch64, x86_64"):
        yank(store, NAME, reason="x")
    assert yank(store, NAME, reason="x", arch="aarch64").current is None


def test_a_damaged_history_has_no_newest_release(store):
    """Else a good one would be withdrawn for the one that was meant."""
    overwrite(store, f"releases/{NAME}/x86_64/3.json", b"{}")
    with pytest.raises(UsageError, match=r"is not known: .*3\.json is not a release"):
        yank(store, NAME, reason="lost")
    with pytest.raises(RepositoryError, match=r"3\.json is not a release"):
        yank(store, NAME, reason="lost", revision=2)


def test_every_revision_of_a_withdrawn_build_is_withdrawn(store):
    rollback(store, NAME, to=1)
    changed = yank(store, NAME, reason="a secret is in it")
    assert (changed.about, changed.withdrawn) == (4, (4, 1))
    assert offered(store) == {NAME: (3, "b3")}
    with pytest.raises(UsageError, match="withdrawn"):
        rollback(store, NAME, to=1)
    # As docs/operations.md has it for a secret.
    store.delete([stat.key for stat in store.list(copy_of(built(1)).folder)])
    assert read(store).current(NAME, "x86_64").revision == 3


def test_a_withdrawn_build_is_not_rolled_back_to_by_another_revision(store):
    rollback(store, NAME, to=1)
    put_release(store, record(5, None, withdraws=4, reason="by an older version"))
    with pytest.raises(UsageError, match="its build was withdrawn"):
        rollback(store, NAME, to=1)
    assert rollback(store, NAME).release.build == "b2"


def test_a_rollback_is_a_new_revision_of_the_older_build(store):
    changed = rollback(store, NAME, reason="b3 does not boot")
    assert (changed.about, changed.release.revision, changed.release.build) == (2, 4, "b2")
    assert changed.release.reason == "back to revision 2: b3 does not boot"
    assert offered(store) == {NAME: (4, "b2")}
    # And further back, not forth again.
    assert rollback(store, NAME).release.build == "b1"
    with pytest.raises(UsageError, match="no older build"):
        rollback(store, NAME)


def test_a_rollback_takes_a_revision(store):
    assert rollback(store, NAME, to=1).release.build == "b1"
    assert offered(store) == {NAME: (4, "b1")}
    with pytest.raises(UsageError, match="get now"):
        rollback(store, NAME, to=1)


@pytest.mark.parametrize("to", [9, 2])
def test_a_rollback_to_a_revision_that_is_not_offered_is_refused(store, to):
    yank(store, NAME, reason="x", revision=2)
    with pytest.raises(UsageError, match=r"no such release|withdrawn"):
        rollback(store, NAME, to=to)


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "packages"])
def test_a_rollback_to_a_build_with_missing_objects_is_refused(store, part):
    store.delete([getattr(copy_of(built(1)), part)])
    with pytest.raises(RepositoryError, match="not whole"):
        rollback(store, NAME, to=1)
    assert read(store).newest(NAME, "x86_64") == 3


def between(monkeypatch, prefix, act):
    """Run ``act`` once, just before the first write below ``prefix``."""
    real, done = DirectoryStore.put, []

    def put(self, key, data, **more):
        if key.startswith(prefix) and not done:
            done.append(key)
            act()
        return real(self, key, data, **more)

    monkeypatch.setattr(DirectoryStore, "put", put)


def test_a_rollback_does_not_replace_a_concurrent_release(store, monkeypatch):
    between(monkeypatch, "releases/", lambda: publish(store, 4, known=3))
    with pytest.raises(RepositoryError, match="published meanwhile"):
        rollback(store, NAME)
    assert read(store).current(NAME, "x86_64").build == "b4"


def test_a_withdrawal_beside_a_publisher_withdraws_the_chosen_revision(store, monkeypatch):
    between(monkeypatch, "releases/", lambda: publish(store, 4, known=3))
    changed = yank(store, NAME, reason="x")
    assert (changed.about, changed.release.revision) == (3, 5)
    assert offered(store) == {NAME: (4, "b4")}


def test_a_publisher_that_planned_before_does_not_undo_a_rollback(store):
    rollback(store, NAME)
    put_build(store, manifest(build_id="late", fingerprint="f3"))
    late = release(store, judged(manifest(build_id="late", fingerprint="f3")), decision(3))
    assert late.verdict is Verdict.WITHDRAWN
    asked = release(store, judged(manifest(build_id="late", fingerprint="f3")), decision(4))
    assert asked.verdict is Verdict.RELEASED


def test_a_publisher_that_planned_before_does_not_undo_a_withdrawal(store):
    yank(store, NAME, reason="x")
    put_build(store, manifest(build_id="late", fingerprint="f3"))
    assert publish_late(store, known=3).verdict is Verdict.WITHDRAWN
    assert publish_late(store, known=4).verdict is Verdict.RELEASED


def publish_late(store, known):
    return release(store, judged(manifest(build_id="late", fingerprint="f3")), decision(known))


RETENTION = Retention(revisions=1, days=0, grace_days=1)


def retire_oldest(store):
    """What gc does years later: nothing is young any more."""
    return collect.sweep(publisher(store, now=4e9), RETENTION)


def test_a_retired_build_is_neither_offered_nor_released(store):
    done = retire_oldest(store)
    assert [step.build for step in done.sweep.retire] == [copy_of(built(1))]
    assert store.head(copy_of(built(1)).disk)
    assert b"/b1." not in store.get("repo.metadata").data
    with pytest.raises(UsageError, match="removed by repo gc"):
        rollback(store, NAME, to=1)
    # What was staged went with it: nothing of it can be released again.
    with pytest.raises(RepositoryError, match="it is incomplete"):
        release(store, judged(built(1)), decision(3))
    assert read(store).newest(NAME, "x86_64") == 3


def test_gc_skips_an_image_that_changed_concurrently(store, monkeypatch):

    def plan_and_roll_back(*given):
        planned = plan(*given)
        rollback(store, NAME, to=1)
        return planned

    monkeypatch.setattr(collect, "plan", plan_and_roll_back)
    done = retire_oldest(store)
    assert done.left == ((NAME, "x86_64"),)
    assert offered(store) == {NAME: (4, "b1")}


def test_a_rollback_overtaken_by_gc_withdraws_itself(store, monkeypatch):
    key = copy_of(built(1)).retirement

    def retire():
        monkeypatch.undo()
        store.put(key, b"{}", expected=None)

    between(monkeypatch, f"releases/{NAME}/x86_64/4", retire)
    with pytest.raises(RepositoryError, match="at the same moment"):
        rollback(store, NAME, to=1)
    assert offered(store) == {NAME: (3, "b3")}


def test_gc_deletes_after_the_grace_period_and_the_repository_stays_whole(store):
    retire_oldest(store)
    done = retire_oldest(store)
    assert [step.build for step in done.sweep.delete] == [copy_of(built(1))]
    assert list(store.list(copy_of(built(1)).folder)) == []
    assert offered(store) == {NAME: (3, "b3")}
    assert {one.revision for one in read(store).live(NAME, "x86_64")} == {2, 3}
    assert retire_oldest(store).sweep.is_empty
    assert publish(store, 4, known=3).release.revision == 4


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_an_interrupted_deletion_is_resumed(store, left):
    retire_oldest(store)
    stats = sorted(store.list(copy_of(built(1)).folder), key=lambda s: "manifest" not in s.key)
    store.delete([stat.key for stat in stats[:left]])
    assert offered(store) == {NAME: (3, "b3")}
    retire_oldest(store)
    assert list(store.list(copy_of(built(1)).folder)) == []


def test_gc_refuses_when_a_published_file_names_what_it_would_delete(store, monkeypatch):
    retire_oldest(store)
    monkeypatch.setattr(collect, "_named_disks", lambda _store: [copy_of(built(1)).disk])
    with pytest.raises(RepositoryError, match="name what is retired"):
        retire_oldest(store)
    assert store.head(copy_of(built(1)).disk)


def test_gc_touches_nothing_of_an_image_with_a_damaged_release(store):
    publish_by_hand(store, *(built(n, "other") for n in (1, 2, 3)))
    overwrite(store, f"releases/{NAME}/x86_64/2.json", b"{}")
    done = retire_oldest(store)
    assert [step.build for step in done.sweep.retire] == [copy_of(built(1, "other"))]


def test_gc_clears_staging_without_changing_public_objects(store):
    publisher(store).refresh()
    before = {stat.key for stat in store.list()}
    keep = Retention(revisions=9, days=9, grace_days=1)
    collect.sweep(publisher(store, now=4e9), keep)
    left = {stat.key for stat in store.list()}
    assert {key for key in before - left if not key.startswith("builds/")} == set()
    assert not any(key.startswith("builds/") for key in left)
    assert offered(store) == {NAME: (3, "b3")}
    assert survey(store).lost == frozenset()


def test_a_copy_retired_before_its_release_is_not_released(store, monkeypatch):
    put_build(store, built(4))
    real = PublicCopy.image

    def image(self, base):
        made = real(self, base)
        store.put(self.target.retirement, b"{}", expected=None)
        return made

    monkeypatch.setattr(PublicCopy, "image", image)
    outcome = release(store, judged(built(4)), decision(3))
    # It is taken for released by its own publisher, and offered by nobody.
    assert outcome.release.public in read(store).retired
    publisher(store).refresh()
    assert offered(store) == {NAME: (3, "b3")}


def family(store):
    """A base with two revisions, a layer on each, and a layer on the second layer."""
    bases = [built(n, "base") for n in (1, 2)]
    layers = [
        manifest("layer", f"l{n}", fingerprint=f"l{n}", base=layer_on(base))
        for n, base in enumerate(bases, 1)
    ]
    top = manifest("top", "t1", fingerprint="t1", base=layer_on(layers[1]))
    publish_by_hand(store, *bases, *layers, top)


def test_a_withdrawal_lists_the_layers_that_contain_the_build(store):
    family(store)
    affected = withdrawals.look_at_yank(store, "base")
    assert [(one.name, one.revision) for one in affected.layers] == [("layer", 2), ("top", 1)]
    changed = yank(store, "base", reason="leak")
    assert [(one.name, one.revision) for one in changed.layers] == [("layer", 2), ("top", 1)]
    assert offered(store)["layer"] == (2, "l2")
    assert withdrawals.look_at_yank(store, NAME).layers == ()


def test_a_withdrawal_includes_the_layers_on_request(store):
    family(store)
    changed = yank(store, "base", reason="leak", with_layers=True)
    assert [(one.name, one.withdraws) for one in changed.taken] == [("layer", 2), ("top", 1)]
    assert changed.taken[0].reason == "it contains base 2: leak"
    assert changed.layers == ()
    assert offered(store) == {NAME: (3, "b3"), "base": (1, "b1"), "layer": (1, "l1")}


def test_a_rollback_rolls_layers_back_to_builds_without_it(store):
    family(store)
    affected = withdrawals.look_at_rollback(store, "base")
    assert [(one.name, one.revision) for one in affected.layers] == [("layer", 2), ("top", 1)]
    changed = rollback(store, "base", with_layers=True)
    assert [(one.name, one.build) for one in changed.taken] == [("layer", "l1")]
    assert changed.taken[0].reason == "back to revision 1: its base base went back to revision 1"
    # Nothing older of it is without the build.
    assert [one.name for one in changed.layers] == ["top"]
    assert offered(store)["layer"] == (3, "l1")
    assert changed.taken[0].released == OPERATOR


def test_previewing_a_withdrawal_writes_nothing(store):
    family(store)
    before = {s.key: s.etag for s in store.list() if not s.key.startswith("state/")}
    withdrawals.look_at_yank(store, "base")
    withdrawals.look_at_rollback(store, "base")
    assert {s.key: s.etag for s in store.list() if not s.key.startswith("state/")} == before
