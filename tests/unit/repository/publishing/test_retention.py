"""What gc would remove, as a value."""

from dataclasses import replace

import pytest

from lago_images.repository.publishing.retention import DAY, Retention, plan
from lago_images.repository.records.layout import OutdatedKey, ReleaseKey
from lago_images.repository.records.state import State
from lago_images.storage.base import Stat, Unfinished
from tests.support.builders import bound, copy_of, layer_on, manifest, release

NOW = 1_700_000_000
KEEP = Retention(revisions=2, days=30, grace_days=2)
IMAGE = ("debian-12", "x86_64")


def stats(folder, age, *, only=None):
    modified = NOW - age * DAY
    names = only or (folder.disk, folder.hash, folder.metadata, folder.manifest)
    return {name: Stat(key=name, size=10, etag="e", modified=modified) for name in names}


def state(public=(), releases=(), *, staged=(), retired=None, lost=(), uploads=(), damaged=()):
    """``public`` and ``staged`` are (manifest, age in days); ``retired`` ages by build id."""
    objects, by_image = {}, {}
    for made, age in public:
        objects |= stats(copy_of(made), age)
    for made, age in staged:
        objects |= stats(made.key.staging, age)
    for key, age in uploads:
        objects |= stats(key.staging, age, only=(key.staging.disk,))
    copies = {made.build_id: copy_of(made) for made, _ in public}
    records = {copies[build]: age for build, age in (retired or {}).items()}
    for copy, age in records.items():
        objects |= stats(copy, age, only=(copy.retirement,))
    for one in releases:
        by_image.setdefault((one.name, one.arch), []).append(one)
    return State(
        releases={image: tuple(history) for image, history in by_image.items()},
        staged={made.key: made for made, _ in staged},
        lost=frozenset(lost),
        objects=objects,
        published=None,
        retired=frozenset(records),
        damaged=dict.fromkeys(damaged, "it is not JSON"),
    )


def history(*ages):
    """A release a day of age, with its public copy, oldest first."""
    builds = [(manifest(build_id=f"b{n}"), age) for n, age in enumerate(ages, 1)]
    releases = [release(n, f"b{n}", published=NOW - age * DAY) for n, age in enumerate(ages, 1)]
    return builds, releases


def removed(found, unfinished=(), keep=KEEP):
    sweep = plan(found, unfinished, keep, NOW)
    return [build_of(step) for step in sweep.retire], [build_of(step) for step in sweep.delete]


def build_of(step):
    return step.build.key.build_id.partition(".")[0]


def test_retention_keeps_the_newest_and_recent_revisions():
    assert removed(state(*history(90, 60, 50, 40))) == (["b1", "b2"], [])
    assert removed(state(*history(90, 60, 29, 28, 3))) == (["b1", "b2"], [])
    assert removed(state(*history(90, 60))) == ([], [])


def test_keeping_one_revision_leaves_one_to_roll_back_to():
    keep = Retention(revisions=1, days=0, grace_days=1)
    assert removed(state(*history(90, 60, 50)), keep=keep) == (["b1"], [])


def test_a_step_lists_objects_bytes_and_revisions():
    [step] = plan(state(*history(90, 60, 50)), (), KEEP, NOW).retire
    key = copy_of(manifest(build_id="b1"))
    assert step.objects == (key.manifest, key.hash, key.metadata, key.disk) or (
        step.objects[0] == key.manifest and len(step.objects) == 4
    )
    assert (step.size, step.revisions, step.why) == (40, (1,), "revision 1 is beyond retention")


def test_a_build_released_again_by_a_rollback_is_kept():
    builds, releases = history(90, 60, 50, 40)
    again = release(5, "b1", published=NOW - DAY, reason="back to revision 1")
    assert removed(state(builds, [*releases, again])) == (["b2", "b3"], [])


def test_the_newest_good_release_is_kept_when_newer_ones_were_withdrawn():
    builds, releases = history(90, 60, 50, 40)
    yanks = [release(n, None, withdraws=n - 2, published=NOW - 20 * DAY) for n in (5, 6)]
    # 3 and 4 are withdrawn, so 1 and 2 are the two newest.
    assert removed(state(builds, [*releases, *yanks])) == (["b3", "b4"], [])


def test_a_recently_withdrawn_build_is_kept_for_the_grace_period():
    builds, releases = history(90, 60, 50, 40)
    yank = release(5, None, withdraws=1, published=NOW - DAY)
    assert removed(state(builds, [*releases, yank])) == (["b2"], [])


def test_the_base_of_a_kept_layer_is_kept():
    builds, releases = history(90, 60, 50, 40)
    layers = [
        manifest(
            "layer",
            build_id=f"l{n}",
            base=layer_on(builds[n - 1][0]),
        )
        for n in (1, 2)
    ]
    public = [
        release(n, one, base=bound(builds[n - 1][0], n), published=NOW - 90 * DAY)
        for n, one in enumerate(layers, 1)
    ]
    whole = state([*builds, *((one, 90) for one in layers)], [*releases, *public])
    assert removed(whole) == ([], [])
    alone = state([*builds, (layers[1], 90)], [*releases, replace(public[1], revision=1)])
    assert removed(alone) == (["b1"], [])
    assert "b2" in removed(state(builds, releases))[0]


def test_waiting_builds_are_kept_for_the_grace_period_and_a_run():
    staged = [(manifest(build_id="young"), 2.9), (manifest(build_id="old"), 3.1)]
    assert removed(state(staged=staged)) == ([], ["old"])


def test_a_released_staged_build_is_removed_after_the_grace_period():
    public, releases = history(9)
    assert removed(state(public, releases, staged=[(public[0][0], 2.1)])) == ([], ["b1"])
    assert removed(state(public, releases, staged=[(public[0][0], 1.9)])) == ([], [])
    # The public copy needs nothing that is staged.
    [step] = plan(state(public, releases, staged=[(public[0][0], 9)]), (), KEEP, NOW).delete
    assert (step.build, step.why) == (public[0][0].key.staging, "staged, and released since")


def test_the_staged_base_of_a_waiting_layer_is_kept():
    base = manifest(build_id="base")
    layer = manifest("layer", build_id="l", base=layer_on(base))
    assert removed(state(staged=[(base, 9), (layer, 1)])) == ([], [])
    assert removed(state(staged=[(base, 9)])) == ([], ["base"])


def test_old_uploads_without_a_manifest_are_removed_at_once():
    old, young = manifest(build_id="old").key, manifest(build_id="young").key
    assert removed(state(uploads=[(old, 3), (young, 1)])) == ([], ["old"])


def test_a_copy_that_no_release_names_is_retired_first():
    """Its publisher may only be slow: once it is retired, nothing can release it."""
    orphan = manifest(build_id="orphan")
    assert removed(state([(orphan, 1)])) == ([], [])
    [step] = plan(state([(orphan, 3)]), (), KEEP, NOW).retire
    assert (step.build, step.why) == (copy_of(orphan), "a copy that no release names")
    assert removed(state([(orphan, 9)], retired={"orphan": 1})) == ([], [])
    assert removed(state([(orphan, 9)], retired={"orphan": 3})) == ([], ["orphan"])


def test_nothing_of_an_image_with_a_damaged_release_is_removed():
    """It may name any copy: the operator restores it first."""
    builds, releases = history(90, 60, 50, 40)
    orphan = (manifest(build_id="b9"), 90)
    key = ReleaseKey(name="debian-12", arch="x86_64", revision=5)
    assert removed(state([*builds, orphan], releases, damaged=[key])) == ([], [])
    assert removed(state([*builds, orphan], releases)) == (["b1", "b2", "b9"], [])


def test_retired_builds_are_removed_after_the_grace_period():
    builds, releases = history(90, 60, 50, 40)
    found = state(builds, releases, retired={"b1": 3, "b2": 1})
    assert removed(found) == ([], ["b1"])


def test_the_qcow2_of_a_copy_goes_with_the_rest():
    builds, releases = history(90, 60, 50, 40)
    found, copy = state(builds, releases, retired={"b1": 3}), copy_of(builds[0][0])
    objects = {**found.objects, **stats(copy, 90, only=[copy.also("qcow2")])}
    steps = plan(replace(found, objects=objects), [], KEEP, NOW).delete
    [step] = [each for each in steps if each.build == copy]
    assert step.objects[0] == copy.manifest
    assert copy.also("qcow2") in step.objects


def test_a_base_retired_while_its_layer_was_built_is_kept():
    builds, releases = history(90, 60, 50, 40)
    layer = manifest("layer", build_id="l", base=layer_on(builds[0][0]))
    public = release(1, layer, base=bound(builds[0][0], 1), published=NOW - 90 * DAY)
    found = state([*builds, (layer, 90)], [*releases, public], retired={"b1": 9, "b2": 9})
    assert removed(found) == ([], ["b2"])
    # Once the layer is being removed itself, nothing holds the base.
    gone = state([*builds, (layer, 90)], [*releases, public], retired={"b1": 9, "b2": 9, "l": 1})
    assert removed(gone) == ([], ["b1", "b2"])


def test_a_damaged_release_is_left_for_its_operator():
    builds, releases = history(90, 60, 50, 40)
    found = state(builds, releases, lost=[copy_of(builds[0][0])])
    assert removed(found) == (["b2"], [])


def test_only_old_unfinished_uploads_are_aborted():
    uploads = [
        Unfinished(key="builds/a/x86_64/b/a.qcow2.xz", upload_id=str(age), begun=NOW - age * DAY)
        for age in (1, 3)
    ]
    assert plan(state(), uploads, KEEP, NOW).abort == (uploads[1],)


@pytest.mark.parametrize(
    "key", ["other-application/database.dump", "builds/a", "my/builds/a/x86_64/b/a.qcow2.xz"]
)
def test_uploads_of_other_applications_are_kept(key):
    upload = Unfinished(key=key, upload_id="1", begun=NOW - 9 * DAY)
    assert plan(state(), [upload], KEEP, NOW).abort == ()


def test_retirement_records_of_unreleased_builds_are_removed_in_the_end():
    never, once = manifest(build_id="never"), manifest(build_id="b1")
    found = state([(never, 9), (once, 9)], [release(1, "b1")], retired={"never": 5, "b1": 5})
    gone = {key: stat for key, stat in found.objects.items() if not key.startswith("images/")}
    empty = replace(found, objects=gone)
    assert plan(empty, (), KEEP, NOW).forget == (copy_of(never).retirement,)
    assert plan(found, (), KEEP, NOW).forget == ()


def test_objects_outside_build_folders_are_kept():
    found = state()
    names = ("builds/readme", "images/readme")
    strange = replace(found, objects={n: Stat(key=n, size=1, etag="e", modified=0) for n in names})
    assert plan(strange, (), KEEP, NOW) == plan(found, (), KEEP, NOW)


def test_builds_waiting_for_the_grace_period_are_counted_with_the_day():
    never, retired = manifest(build_id="never"), manifest(build_id="retired")
    found = state([(retired, 90)], staged=[(never, 1)], retired={"retired": 1})
    waiting = plan(found, (), KEEP, NOW).waiting
    assert [(each.build.key.build_id.partition(".")[0], each.until) for each in waiting] == [
        ("retired", NOW + DAY),
        ("never", NOW + 2 * DAY),
    ]


def test_records_of_what_is_outdated_go_with_revisions_that_cannot_come_back():
    builds, releases = history(90, 60, 50, 40, 3)
    taken = release(6, None, withdraws=3, published=NOW - 30 * DAY)
    found = state(builds, [*releases, taken], retired={"b1": 10})
    ages = {1: 60, 2: 50, 3: 40, 4: 30, 5: 1, 7: 90}
    keys = {
        revision: OutdatedKey(name=IMAGE[0], arch=IMAGE[1], revision=revision, number=1)
        for revision in ages
    }
    records = {
        str(key): Stat(key=str(key), size=1, etag="e", modified=NOW - ages[revision] * DAY)
        for revision, key in keys.items()
    }
    withdrawal = Stat(key=str(taken.key), size=1, etag="e", modified=NOW - 30 * DAY)
    records |= {withdrawal.key: withdrawal}
    found = replace(found, objects={**found.objects, **records})
    # Retired, and withdrawn. Any other may be current again.
    assert plan(found, (), KEEP, NOW).forget == (str(keys[1]), str(keys[3]))
    late = state(builds, [*releases, taken], retired={"b1": 0})
    just = {withdrawal.key: replace(withdrawal, modified=NOW)}
    late = replace(late, objects={**late.objects, **records, **just})
    assert plan(late, (), KEEP, NOW).forget == ()
    young = {name: replace(stat, modified=NOW - DAY) for name, stat in records.items()}
    assert plan(replace(found, objects={**found.objects, **young}), (), KEEP, NOW).forget == ()
