"""What gc would remove, as a value."""

import pytest

from lago_images.repository.publishing.retention import DAY, Retention, plan
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.records.state import State
from lago_images.storage.base import Stat, Unfinished
from tests.support.handmade import manifest, release

NOW = 1_700_000_000
KEEP = Retention(revisions=2, days=30, grace_days=2)
IMAGE = ("debian-12", "x86_64")


def stats(key, age, *, only=None):
    modified = NOW - age * DAY
    names = only or (key.disk, key.hash, key.metadata, key.manifest)
    return {name: Stat(key=name, size=10, etag="e", modified=modified) for name in names}


def state(builds, releases=(), *, retired=None, incomplete=(), uploads=()):
    """``builds`` are (manifest, age in days); ``retired`` ages by manifest's build id."""
    objects, by_image = {}, {}
    for made, age in builds:
        objects |= stats(made.key, age)
    for key, age in uploads:
        objects |= stats(key, age, only=(key.disk,))
    keys = {made.build_id: made.key for made, _ in builds}
    gone = {keys[build]: age for build, age in (retired or {}).items()}
    for key, age in gone.items():
        objects |= stats(key, age, only=(key.retirement,))
    for one in releases:
        by_image.setdefault((one.name, one.arch), []).append(one)
    return State(
        releases={image: tuple(history) for image, history in by_image.items()},
        manifests={made.key: made for made, _ in builds if made.key not in gone},
        incomplete=frozenset(incomplete),
        unreadable={},
        objects=objects,
        published=None,
        retired=frozenset(gone),
    )


def history(*ages):
    """A release a day of age, with its build, oldest first."""
    builds = [(manifest(build_id=f"b{n}"), age) for n, age in enumerate(ages, 1)]
    releases = [release(n, f"b{n}", published=NOW - age * DAY) for n, age in enumerate(ages, 1)]
    return builds, releases


def removed(found, unfinished=(), keep=KEEP):
    sweep = plan(found, unfinished, keep, NOW)
    return [s.build.build_id for s in sweep.retire], [s.build.build_id for s in sweep.delete]


def test_retention_keeps_the_newest_and_the_young():
    assert removed(state(*history(90, 60, 50, 40))) == (["b1", "b2"], [])
    assert removed(state(*history(90, 60, 29, 28, 3))) == (["b1", "b2"], [])
    assert removed(state(*history(90, 60))) == ([], [])


def test_one_revision_to_keep_leaves_one_to_fall_back_to():
    keep = Retention(revisions=1, days=0, grace_days=1)
    assert removed(state(*history(90, 60, 50)), keep=keep) == (["b1"], [])


def test_a_step_tells_objects_bytes_and_revisions():
    [step] = plan(state(*history(90, 60, 50)), (), KEEP, NOW).retire
    key = manifest(build_id="b1").key
    assert step.objects == (key.manifest, key.hash, key.metadata, key.disk) or (
        step.objects[0] == key.manifest and len(step.objects) == 4
    )
    assert (step.size, step.revisions, step.why) == (40, (1,), "revision 1 is beyond retention")


def test_a_build_that_a_rollback_published_again_is_kept():
    builds, releases = history(90, 60, 50, 40)
    again = release(5, "b1", published=NOW - DAY, reason="back to revision 1")
    assert removed(state(builds, [*releases, again])) == (["b2", "b3"], [])


def test_the_newest_good_release_is_kept_when_newer_ones_were_withdrawn():
    builds, releases = history(90, 60, 50, 40)
    yanks = [
        release(n, None, withdraws=n - 2, fingerprint="", published=NOW - 20 * DAY) for n in (5, 6)
    ]
    # 3 and 4 are withdrawn, so 1 and 2 are the two newest.
    assert removed(state(builds, [*releases, *yanks])) == (["b3", "b4"], [])


def test_what_was_withdrawn_a_moment_ago_is_kept_for_the_grace_period():
    builds, releases = history(90, 60, 50, 40)
    yank = release(5, None, withdraws=1, fingerprint="", published=NOW - DAY)
    assert removed(state(builds, [*releases, yank])) == (["b2"], [])


def test_the_base_of_a_kept_layer_is_kept():
    builds, releases = history(90, 60, 50, 40)
    layers = [
        manifest(
            "layer",
            build_id=f"l{n}",
            base=BaseRecord(ref="layer:debian-12", digest=f"build:b{n}"),
        )
        for n in (1, 2)
    ]
    public = [release(n, f"l{n}", "layer", published=NOW - 90 * DAY) for n in (1, 2)]
    whole = state([*builds, *((one, 90) for one in layers)], [*releases, *public])
    assert removed(whole) == ([], [])
    alone = state([*builds, (layers[1], 90)], [*releases, public[0]])
    assert "b1" in removed(alone)[0]
    assert "b2" in removed(state(builds, releases))[0]


def test_builds_that_wait_are_kept_for_the_grace_period_and_a_run():
    builds = [(manifest(build_id="young"), 2.9), (manifest(build_id="old"), 3.1)]
    assert removed(state(builds)) == (["old"], [])


def test_what_a_kept_unreleased_layer_stands_on_is_kept():
    base = manifest(build_id="base")
    layer = manifest(
        "layer", build_id="l", base=BaseRecord(ref="layer:debian-12", digest="build:base")
    )
    assert removed(state([(base, 9), (layer, 1)])) == ([], [])


def test_uploads_without_a_manifest_go_at_once_when_they_are_old():
    old, young = manifest(build_id="old").key, manifest(build_id="young").key
    assert removed(state([], uploads=[(old, 3), (young, 1)])) == ([], ["old"])


def test_retired_builds_go_when_the_grace_period_is_over():
    builds, releases = history(90, 60, 50, 40)
    found = state(builds, releases, retired={"b1": 3, "b2": 1})
    assert removed(found) == ([], ["b1"])


def test_a_base_that_was_retired_while_its_layer_was_built_stays_with_it():
    layer = manifest(
        "layer", build_id="l", base=BaseRecord(ref="layer:debian-12", digest="build:b1")
    )
    builds, releases = history(90, 60, 50, 40)
    public = release(1, "l", "layer", published=NOW - 90 * DAY)
    found = state([*builds, (layer, 90)], [*releases, public], retired={"b1": 9, "b2": 9})
    assert removed(found) == ([], ["b2"])
    # Once the layer is being removed itself, nothing holds the base.
    gone = state([*builds, (layer, 90)], [*releases, public], retired={"b1": 9, "b2": 9, "l": 1})
    assert removed(gone) == ([], ["b1", "b2"])


def test_a_damaged_release_is_left_for_its_operator():
    builds, releases = history(90, 60, 50, 40)
    found = state(builds, releases, incomplete=[builds[0][0].key])
    assert removed(found) == (["b2"], [])


def test_only_old_unfinished_uploads_are_aborted():
    uploads = [
        Unfinished(key="builds/a/x86_64/b/a.qcow2.xz", upload_id=str(age), begun=NOW - age * DAY)
        for age in (1, 3)
    ]
    assert plan(state([]), uploads, KEEP, NOW).abort == (uploads[1],)


@pytest.mark.parametrize(
    "key", ["other-application/database.dump", "builds/a", "my/builds/a/x86_64/b/a.qcow2.xz"]
)
def test_another_applications_uploads_are_left_alone(key):
    upload = Unfinished(key=key, upload_id="1", begun=NOW - 9 * DAY)
    assert plan(state([]), [upload], KEEP, NOW).abort == ()


def test_records_of_what_never_was_released_are_forgotten_in_the_end():
    never, once = manifest(build_id="never"), manifest(build_id="b1")
    found = state([(never, 9), (once, 9)], [release(1, "b1")], retired={"never": 5, "b1": 5})
    gone = {key: stat for key, stat in found.objects.items() if not key.startswith("builds/")}
    empty = State(
        releases=found.releases,
        manifests={},
        incomplete=frozenset(),
        unreadable={},
        objects=gone,
        published=None,
        retired=found.retired,
    )
    assert plan(empty, (), KEEP, NOW).forget == (never.key.retirement,)
    assert plan(found, (), KEEP, NOW).forget == ()


def test_what_is_in_no_builds_folder_is_not_touched():
    found = state([])
    objects = {"builds/readme": Stat(key="builds/readme", size=1, etag="e", modified=0)}
    strange = State(
        releases={},
        manifests={},
        incomplete=frozenset(),
        unreadable={},
        objects={**found.objects, **objects},
        published=None,
    )
    assert plan(strange, (), KEEP, NOW) == plan(found, (), KEEP, NOW)


def test_what_waits_for_the_end_of_the_grace_period_is_counted_with_its_day():
    never, retired = manifest(build_id="never"), manifest(build_id="retired")
    found = state([(never, 1), (retired, 90)], retired={"retired": 1})
    assert plan(found, (), KEEP, NOW).waiting == (NOW + DAY, NOW + 2 * DAY)
