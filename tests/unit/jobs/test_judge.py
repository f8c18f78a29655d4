"""What builders and plans say is judged by the publisher's own checkout."""

import hashlib
from dataclasses import replace
from datetime import date

import pytest

from lago_images.jobs.judge import plan_problems, problems
from lago_images.planning.model import Action, Tree
from lago_images.repository.records.guest_tests import BOOT, GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.manifest import BaseRecord, BootTest
from lago_images.specs.model import Base, BaseKind, GuestTest, Spec
from lago_images.specs.quarantine import NONE, Quarantine, QuarantineEntry
from tests.support import ci
from tests.support.builders import with_qcow2

NOW = 1_700_000_100
HEAD = "2" * 40
OTHER = "sha256:" + "e" * 64
BASE_DISK = "d" * 64
PROPERTIES = {"osinfo": "debian12", "aliases": "deb bookworm", "size": "6G"}
SPEC = Spec(
    name="debian-12",
    path="image-specs/debian-12",
    base=Base(kind=BaseKind.SIMPLE, name="disk.raw", line=1),
    arch="x86_64",
    properties=PROPERTIES,
)
LAYER = replace(SPEC, base=Base(kind=BaseKind.LAYER, name="below", line=1))
IMAGE = ci.planned()
BUILT = ci.built().manifest
GOOD = replace(BUILT, properties=PROPERTIES, disk=replace(BUILT.disk, virtual_size=6 << 30))
ON_BELOW = replace(GOOD, base=BaseRecord(ref="layer:below", digest=f"sha256:{BASE_DISK}"))


def tree(spec: Spec = SPEC, **more) -> Tree:
    fingerprints = {spec.name: IMAGE.fingerprint}
    return Tree(specs={spec.name: spec}, fingerprints=fingerprints, inputs={}, **more)


def sha256(manifest) -> str:
    return hashlib.sha256(manifest.to_json()).hexdigest()


def judged(manifest=GOOD, image=IMAGE, spec=SPEC, now=NOW, dirty=(), **more) -> list[str]:
    digest = more.pop("digest", None) or sha256(manifest)
    quarantine = more.pop("quarantine", NONE)
    made = tree(spec or SPEC, dirty=frozenset(dirty), quarantine=quarantine)
    return problems(manifest, digest, image, spec, made, now, **more)


def test_a_build_that_the_checkout_asks_for_has_no_problem():
    assert judged() == []
    assert judged(result_sha256=sha256(GOOD)) == []
    on_it = replace(IMAGE, base="layer:below")
    assert judged(ON_BELOW, on_it, LAYER, base_sha256=BASE_DISK) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fingerprint": OTHER}, "another fingerprint"),
        ({"arch": "aarch64"}, "it is a build of debian-12 (aarch64)"),
        ({"name": "other"}, "it is a build of other (x86_64)"),
        ({"boot": None}, "demands a boot test, and it had none"),
        ({"created": NOW + 3601}, "in the future"),
        ({"created": 2**61}, "in the future"),
        ({"created": 0}, "before 2020"),
        ({"dirty": True}, "were not committed"),
        ({"base": BaseRecord(ref="simple:other.raw", digest=OTHER)}, "built on 'simple:other.raw'"),
        ({"properties": PROPERTIES | {"aliases": "deb fedora-42"}}, "not the spec's: 'aliases'"),
        ({"properties": PROPERTIES | {"root-password": "x"}}, "not the spec's: 'root-password'"),
        ({"properties": {**PROPERTIES, "boot-test": "no"}, "boot": None}, "'boot-test'"),
        ({"properties": {"osinfo": "debian12"}}, "not the spec's: 'aliases', 'size'"),
        ({"disk": replace(GOOD.disk, virtual_size=7 << 30)}, "its virtual size is"),
        ({"disk": replace(GOOD.disk, virtual_size=5 << 30)}, "its virtual size is"),
    ],
    ids=str,
)
def test_a_forged_manifest_is_refused_for_each_false_claim(change, what):
    found = judged(replace(GOOD, **change))
    assert any(what in problem for problem in found), found


@pytest.mark.parametrize(
    ("firmware", "tried", "what"),
    [
        ("bios uefi", {"bios": 1.0}, "boots under uefi: it was not tried"),
        ("bios uefi", {}, "boots under bios and uefi: it was not tried"),
        ("bios", {"uefi": 1.0}, "boots under bios: it was not tried"),
    ],
)
def test_an_image_was_booted_under_every_firmware_that_its_spec_names(firmware, tried, what):
    properties = {**PROPERTIES, "firmware": firmware}
    made = replace(GOOD, properties=properties, boot=BootTest(seconds=1, accel="kvm"))
    spec = replace(SPEC, properties=properties)
    both = replace(made, boot=replace(made.boot, firmware={"bios": 1.0, "uefi": 1.0}))
    assert judged(both, spec=spec) == []
    found = judged(replace(made, boot=replace(made.boot, firmware=tried)), spec=spec)
    assert found == [f"the spec demands that it {what}"]


def test_a_build_without_a_form_that_the_settings_ask_for_is_refused():
    asking = replace(tree(), also=frozenset({"qcow2"}))
    digest = sha256(GOOD)
    assert problems(GOOD, digest, IMAGE, SPEC, asking, NOW) == [
        "it lacks the qcow2 that publish-also asks for"
    ]
    whole = with_qcow2(GOOD)
    assert problems(whole, sha256(whole), IMAGE, SPEC, asking, NOW) == []
    # What nobody asks for is no problem: it stays staged.
    assert judged(whole) == []


def test_a_bootstrapped_image_is_booted_under_bios_and_uefi():
    spec = replace(SPEC, base=Base(kind=BaseKind.BOOTSTRAP, name="debian-12", line=1))
    record = BaseRecord(ref="bootstrap:debian-12", digest=OTHER)
    made = replace(GOOD, base=record, boot=BootTest(seconds=1, accel="kvm"))
    assert any("boots under bios and uefi" in what for what in judged(made, spec=spec))


TEST = GuestTest(spec="debian-12", name="debian-12.test", path="image-specs/debian-12.test")
TESTED = replace(SPEC, tests=(TEST,))
PASSED = GuestTestRecord(name=TEST.name, exit_code=0)
FAILED = GuestTestRecord(name=TEST.name, exit_code=1)
HELD = QuarantinedFailure(what=BOOT, problem="x", issue="https://x/", until="2024-01-01")


BACK = replace(HELD, what=TEST.name)


def held_until(day: date, **patterns) -> Quarantine:
    return Quarantine(entries=(QuarantineEntry(issue="https://x/", until=day, **patterns),))


TODAY = date(2023, 11, 14)
FOR_NOW = held_until(TODAY, image="debian-*")


@pytest.mark.parametrize(
    ("boot", "quarantine", "what"),
    [
        ({}, NONE, "the spec demands the test debian-12.test: it was not run"),
        ({}, FOR_NOW, "the spec demands the test debian-12.test: it was not run"),
        ({"tests": (FAILED,)}, NONE, "test debian-12.test failed, and no quarantine of the check"),
        (
            {"tests": (FAILED,)},
            held_until(date(2023, 11, 13), test="*"),
            "no quarantine of the checkout holds that back",
        ),
        ({"tests": (FAILED,)}, held_until(TODAY, test="other"), "no quarantine of the checkout"),
        ({"quarantined": (HELD,)}, NONE, "its boot test failed, and no quarantine of the check"),
        ({"quarantined": (HELD,)}, held_until(TODAY, test="*"), "its boot test failed, and no"),
    ],
)
def test_the_tests_of_the_spec_have_passed_or_the_publishers_quarantine_holds(
    boot, quarantine, what
):
    made = replace(GOOD, boot=replace(GOOD.boot, **boot))
    found = judged(made, spec=TESTED, quarantine=quarantine)
    assert any(what in problem for problem in found), found


@pytest.mark.parametrize(
    ("boot", "quarantine"),
    [
        ({"tests": (PASSED,)}, NONE),
        ({"tests": (FAILED,), "quarantined": (BACK,)}, FOR_NOW),
        (
            {"tests": (FAILED,), "quarantined": (BACK,)},
            held_until(TODAY, test="debian-12.test"),
        ),
        ({"quarantined": (HELD,), "firmware": {}}, FOR_NOW),
    ],
)
def test_a_test_that_passed_or_is_held_back_is_good(boot, quarantine):
    made = replace(GOOD, boot=replace(GOOD.boot, **boot))
    assert judged(made, spec=TESTED, quarantine=quarantine) == []


@pytest.mark.parametrize(
    "boot",
    [
        {"tests": (PASSED,), "quarantined": (BACK,)},
        {"tests": (FAILED,)},
        {"tests": (PASSED,), "quarantined": (replace(HELD, what="anything"),)},
        {"tests": (FAILED,), "quarantined": (HELD, BACK)},
    ],
)
def test_only_what_failed_is_said_to_be_quarantined(boot):
    made = replace(GOOD, boot=replace(GOOD.boot, **boot))
    found = judged(made, spec=TESTED, quarantine=FOR_NOW)
    assert found == ["what it says to be quarantined is not what failed"]


def test_a_layer_is_booted_under_what_its_bottom_is_for():
    bottom = replace(SPEC, base=Base(kind=BaseKind.BOOTSTRAP, name="debian-12", line=1))
    layer = replace(SPEC, name="layer", base=Base(kind=BaseKind.LAYER, name=SPEC.name, line=1))
    checkout = replace(tree(layer), specs={SPEC.name: bottom, "layer": layer})
    made = replace(GOOD, name="layer", boot=replace(GOOD.boot, firmware={"bios": 1.0}))
    found = problems(made, sha256(made), None, layer, checkout, NOW)
    assert any("boots under uefi: it was not tried" in what for what in found), found


def test_no_agent_runs_the_tests_of_a_base():
    properties = {**PROPERTIES, "boot-test": "console:login:"}
    made = replace(GOOD, properties=properties)
    assert judged(made, spec=replace(TESTED, properties=properties)) == []


def test_properties_that_the_spec_leaves_out_are_not_required():
    quiet = replace(SPEC, properties={"boot-test": "no"})
    made = replace(GOOD, properties={"boot-test": "no"}, boot=None)
    assert judged(made, spec=quiet) == []
    tested = replace(made, boot=BootTest(seconds=1, accel="kvm"))
    assert judged(tested, spec=quiet) == ["it tells of a boot test, and the spec has none"]
    assert judged(replace(GOOD, created=NOW + 3600)) == []
    rounded = replace(GOOD.disk, virtual_size=(6 << 30) + 511)
    assert judged(replace(GOOD, disk=rounded)) == []
    assert judged(replace(GOOD, dirty=True), dirty=[SPEC.path]) == []
    assert judged(replace(GOOD, dirty=True), dirty=["another"]) != []


def test_a_build_that_was_overwritten_after_its_result_is_refused():
    other = replace(GOOD, disk=replace(GOOD.disk, sha256="0" * 64))
    assert judged(other, result_sha256=sha256(GOOD)) == [
        "its manifest is not the one that was built: it was changed since"
    ]


def test_a_build_that_was_overwritten_after_the_plan_is_not_promoted():
    image = replace(
        IMAGE, action=Action.PROMOTE, promote=GOOD.build_id, promote_sha256=sha256(GOOD)
    )
    assert judged(image=image) == []
    other = replace(GOOD, disk=replace(GOOD.disk, sha256="0" * 64))
    assert judged(other, image) == [
        "its manifest is not the one that the plan promotes: it was changed since"
    ]
    # The digest of a result does not stand in for the plan's.
    assert judged(other, image, result_sha256=sha256(other))
    another = replace(GOOD, build_id="another")
    assert f"the plan promotes build {GOOD.build_id}" in judged(another, image)
    assert judged(image=replace(image, promote_sha256=None))


def test_a_manifest_in_other_bytes_is_refused():
    assert judged(digest="0" * 64) == ["its manifest is not written as a builder writes it"]


def test_a_build_that_no_plan_or_checkout_asks_for_is_refused():
    assert judged(image=None) == ["the plan does not ask for it"]
    assert judged(spec=None) == ["the checkout has no such spec"]
    kept = replace(IMAGE, action=Action.KEEP)
    assert judged(image=kept) == ["the plan says to keep it, not to release it"]


@pytest.mark.parametrize(
    ("digest", "offered", "what"),
    [
        ("build:None", BASE_DISK, "stands on other bytes than below is offered with"),
        ("sha256:" + "0" * 64, BASE_DISK, "stands on other bytes"),
        (f"sha256:{BASE_DISK}", None, "its base below is not offered"),
        ("sha256:None", None, "its base below is not offered"),
    ],
)
def test_a_layer_must_be_built_on_the_offered_bytes_of_its_base(digest, offered, what):
    made = replace(GOOD, base=BaseRecord(ref="layer:below", digest=digest))
    (found,) = judged(made, replace(IMAGE, base="layer:below"), LAYER, base_sha256=offered)
    assert what in found


def test_the_base_checksum_of_the_spec_is_enforced():
    demands = replace(SPEC, properties=PROPERTIES | {"base-checksum": "sha256:" + "0" * 64})
    made = replace(GOOD, properties=demands.properties)
    assert judged(made, spec=demands) == []
    other = replace(made, base=BaseRecord(ref="simple:disk.raw", digest=OTHER))
    assert judged(other, spec=demands) == ["its base has not the checksum that the spec demands"]


def asked(*images, head=HEAD, promote=True, spec=SPEC, **more) -> list[str]:
    return plan_problems(ci.plan(*images, **more), tree(spec), head, promote=promote)


def test_a_plan_of_this_checkout_has_no_problem():
    assert asked(IMAGE) == []
    gone = replace(IMAGE, name="gone", action=Action.RETIRE, fingerprint="", base="")
    kept = replace(IMAGE, action=Action.KEEP)
    assert asked(gone, kept) == []
    assert asked(IMAGE, head=None) != []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fingerprint": OTHER}, "another fingerprint than the checkout"),
        ({"fingerprint": ""}, "another fingerprint than the checkout"),
        ({"name": "planted"}, "planted (x86_64): the checkout has no such spec"),
        ({"arch": "aarch64"}, "the checkout's spec is for x86_64"),
        ({"base": "layer:other"}, "the plan has it on 'layer:other'"),
        ({"action": Action.PROMOTE, "promote": "b1"}, "does not name its manifest's digest"),
        ({"action": Action.PROMOTE, "promote_sha256": "0" * 64}, "does not name"),
    ],
    ids=str,
)
def test_a_forged_plan_releases_nothing_that_no_checkout_asks_for(change, what):
    (found,) = asked(replace(IMAGE, **change))
    assert what in found


def test_a_plan_of_another_commit_is_refused():
    assert asked(IMAGE, head="3" * 40) == [
        "the plan is for commit 2222222, checked out is commit 3333333"
    ]


def test_a_forged_plan_promotes_nothing_where_that_is_forbidden():
    image = replace(IMAGE, action=Action.PROMOTE, promote="b1", promote_sha256="0" * 64)
    assert asked(image) == []
    (found,) = asked(image, promote=False)
    assert "which the settings forbid" in found
