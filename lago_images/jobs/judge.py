"""Judge what builders and plans say by the publisher's own checkout. Pure.

A manifest lies in the staging area, where everybody writes who holds a builder's credentials; a
plan and results are artifacts, which pass through others' hands. So neither is believed: what the
checkout does not ask for is not released.
"""

import hashlib
from collections.abc import Iterator
from datetime import date

from lago_images.planning.model import WORK, Action, Plan, PlannedImage, Tree
from lago_images.planning.uncommitted import Uncommitted
from lago_images.repository.records.manifest import BootTest, Manifest
from lago_images.specs.bases import required_firmwares
from lago_images.specs.boot_check import boot_check
from lago_images.specs.model import BaseKind, Spec
from lago_images.specs.properties import size_bytes
from lago_images.specs.quarantine import Quarantine, day

# What a builder's clock may be ahead of the publisher's, in seconds.
_AHEAD = 3600
# 2020-01-01: before it no build of ours was made, and any clock that says so is wrong.
_EPOCH_OF_SENSE = 1_577_836_800
_SHA256 = "sha256:"
# Formats round a disk's size up to whole sectors or clusters: less than this, in bytes.
_ROUNDED_BY = 1 << 20


def plan_problems(plan: Plan, tree: Tree, head: str | None, *, promote: bool) -> list[str]:
    """Return what a plan asks for that the publisher's own checkout does not.

    Args:
        plan: The plan, which another job may have made, or anyone.
        tree: The specs as the publisher has them checked out.
        head: The commit that the publisher has checked out; None outside git.
        promote: Whether settings let builds be promoted.
    """
    problems = []
    if plan.head != head:
        problems.append(f"the plan is for {_commit(plan.head)}, checked out is {_commit(head)}")
    for image in plan.images:
        if image.action in WORK:
            spec = tree.specs.get(image.name)
            problems += [
                f"{image.name} ({image.arch}): {problem}"
                for problem in (*_planned(image, spec, tree), *_promotion(image, promote=promote))
            ]
    return problems


def problems(
    manifest: Manifest,
    manifest_sha256: str,
    image: PlannedImage | None,
    spec: Spec | None,
    tree: Tree,
    now: float,
    *,
    result_sha256: str | None = None,
    base_sha256: str | None = None,
) -> list[str]:
    """Return why a staged build is not the one to be released; empty when it is.

    Args:
        manifest: Of the build, read from the staging area.
        manifest_sha256: Of the bytes that it was read from.
        image: The plan's entry; None when the plan has none.
        spec: The publisher's own; None when it has none of the name.
        tree: What the publisher has checked out.
        now: Seconds since the epoch.
        result_sha256: The manifest's digest in the result of this run's build; None without one.
        base_sha256: For a layer, of the disk that its base is offered with, or is released with
            in this publication; None when neither is the case, and then it is refused.
    """
    return [
        *_bytes(manifest, manifest_sha256, image, result_sha256),
        *(_planned(image, spec, tree) if image else ["the plan does not ask for it"]),
        *(_built(manifest, spec, tree) if spec else ()),
        *(_booted(manifest, spec, tree, day(now)) if spec else ()),
        *(_base(manifest, spec, base_sha256) if spec else ()),
        *_time(manifest, now),
    ]


def _commit(head: str | None) -> str:
    return f"commit {head[:7]}" if head else "no commit"


def _planned(image: PlannedImage, spec: Spec | None, tree: Tree) -> Iterator[str]:
    """Yield how a plan's entry differs from the checkout."""
    if spec is None:
        yield "the checkout has no such spec"
        return
    if image.action not in WORK:
        yield f"the plan says to {image.action} it, not to release it"
    if image.arch != spec.arch:
        yield f"the checkout's spec is for {spec.arch}"
    if image.base != str(spec.base):
        yield f"the plan has it on {image.base!r}, the checkout on {str(spec.base)!r}"
    if image.fingerprint != tree.fingerprints[spec.name]:
        yield "the plan has another fingerprint than the checkout"


def _promotion(image: PlannedImage, *, promote: bool) -> Iterator[str]:
    if image.action is Action.PROMOTE and not promote:
        yield "the plan promotes a build, which the settings forbid"
    if image.action is Action.PROMOTE and not (image.promote and image.promote_sha256):
        yield "the plan promotes a build and does not name its manifest's digest"


def _bytes(
    manifest: Manifest, sha256: str, image: PlannedImage | None, result_sha256: str | None
) -> Iterator[str]:
    """Yield why the bytes in the staging area are not those that were decided on."""
    if hashlib.sha256(manifest.to_json()).hexdigest() != sha256:
        yield "its manifest is not written as a builder writes it"
    if image is not None and image.action is Action.PROMOTE:
        if image.promote != manifest.build_id:
            yield f"the plan promotes build {image.promote}"
        if image.promote_sha256 != sha256:
            yield "its manifest is not the one that the plan promotes: it was changed since"
    elif result_sha256 is not None and result_sha256 != sha256:
        yield "its manifest is not the one that was built: it was changed since"


def _built(manifest: Manifest, spec: Spec, tree: Tree) -> Iterator[str]:
    """Yield how a build differs from what the checkout's spec makes."""
    if (manifest.name, manifest.arch) != (spec.name, spec.arch):
        yield f"it is a build of {manifest.name} ({manifest.arch})"
    if manifest.fingerprint != tree.fingerprints[spec.name]:
        yield "it was built from another fingerprint than the checkout has"
    ours, theirs = spec.properties, manifest.properties
    differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if differing:
        # ascii: these names are a builder's, and go to terminals and to GitHub's log.
        yield f"its properties are not the spec's: {', '.join(map(ascii, differing))}"
    # It is no other disk, but not all of what the settings ask for.
    if lacking := sorted(tree.also - manifest.also.keys()):
        yield f"it lacks the {' and '.join(lacking)} that publish-also asks for"
    size = size_bytes(ours["size"]) if "size" in ours else None
    if size is not None and not size <= manifest.disk.virtual_size < size + _ROUNDED_BY:
        yield f"its virtual size is {manifest.disk.virtual_size} bytes, and the spec's {size}"
    if manifest.dirty and not Uncommitted.of(tree).behind([spec.name]):
        yield "it was built from files that were not committed, and here they are"


def _booted(manifest: Manifest, spec: Spec, tree: Tree, today: date) -> Iterator[str]:
    """Yield what the checkout's spec demands of the boot and the tests, and was not found good."""
    check, boot, quarantine = boot_check(spec.properties), manifest.boot, tree.quarantine
    if check.is_off:
        if boot is not None:
            yield "it tells of a boot test, and the spec has none"
        return
    if boot is None:
        yield "the spec demands a boot test, and it had none"
        return
    if {each.what for each in boot.quarantined} != boot.failed:
        yield "what it says to be quarantined is not what failed"
    if not boot.has_passed:
        if not quarantine.holding(spec.name, None, today):
            yield "its boot test failed, and no quarantine of the checkout holds that back"
        return
    required = required_firmwares(spec, tree.specs)
    missing = [name for name in required if name not in boot.firmware]
    if missing:
        yield f"the spec demands that it boots under {' and '.join(missing)}: it was not tried"
    if check.has_agent:
        yield from _tested(boot, spec, quarantine, today)


def _tested(boot: BootTest, spec: Spec, quarantine: Quarantine, today: date) -> Iterator[str]:
    ended = {record.name: record for record in boot.tests}
    for test in spec.tests:
        record = ended.get(test.name)
        if record is None:
            yield f"the spec demands the test {test.name}: it was not run"
        elif not (record.has_passed or quarantine.holding(spec.name, test.name, today)):
            yield f"its test {test.name} failed, and no quarantine of the checkout holds that back"


def _base(manifest: Manifest, spec: Spec, base_sha256: str | None) -> Iterator[str]:
    """Yield how what a build stands on differs from what the checkout's spec says."""
    if manifest.base.ref != str(spec.base):
        yield f"it was built on {manifest.base.ref!r}, and the spec says {str(spec.base)!r}"
    wanted = spec.properties.get("base-checksum")
    if spec.base.kind is BaseKind.SIMPLE and wanted and manifest.base.digest != wanted:
        yield "its base has not the checksum that the spec demands"
    if spec.base.kind is BaseKind.LAYER:
        if base_sha256 is None:
            yield f"its base {spec.base.name} is not offered"
        elif manifest.base.digest != f"{_SHA256}{base_sha256}":
            yield f"it stands on other bytes than {spec.base.name} is offered with"


def _time(manifest: Manifest, now: float) -> Iterator[str]:
    if manifest.created > now + _AHEAD:
        yield "it claims to have been made in the future"
    if manifest.created < _EPOCH_OF_SENSE:
        yield "it claims to have been made before 2020"
