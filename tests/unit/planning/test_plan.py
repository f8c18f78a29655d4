"""The plan as a value: from specs, holdings and history to actions with reasons."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.errors import UsageError
from lago_images.planning.git_output import Change
from lago_images.planning.history import Ask, History, Holdings, ImageHoldings, Relation
from lago_images.planning.model import Action
from lago_images.planning.plan import named, suspects
from lago_images.repository.records.changes import (
    Package,
    PackageChanges,
    Upstream,
    VersionChange,
)
from lago_images.repository.records.layout import ImageId
from lago_images.specs.quarantine import Quarantine, QuarantineEntry, day
from tests.support.planning import (
    DAY,
    HEAD,
    NOW,
    OLD,
    actions,
    build_of,
    digest,
    history,
    image,
    plan,
    published,
    released,
    since,
    spec,
    tree,
    why,
)

BASE, NFS, ISCSI = spec("debian"), spec("nfs", "layer:debian"), spec("iscsi", "layer:debian")
CIRROS = spec("cirros", "simple:disk.qcow2")
ALL = tree(BASE, NFS, ISCSI, CIRROS)
KEY = ("debian", "x86_64")


def test_an_empty_repository_builds_every_image():
    made = plan(ALL)
    assert set(actions(made).values()) == {"build"}
    assert made.chains == (("cirros",), ("debian", "iscsi", "nfs"))
    assert why(made, "cirros") == [("new", "image-specs/cirros: nothing is published yet")]
    assert ("base", "its base debian is built") in why(made, "nfs")
    assert (made.head, made.published, made.made) == (None, None, NOW)


def test_an_unchanged_tree_builds_nothing_and_says_why():
    made = plan(ALL, published(ALL), history("README.md"))
    assert set(actions(made).values()) == {"keep"}
    assert made.chains == ()
    assert image(made, "nfs").note == f"unchanged since revision 1, of commit {OLD[:7]}"
    assert (made.head, made.published) == (HEAD, OLD)


def test_a_changed_layer_is_built_alone():
    new = tree(BASE, NFS, ISCSI, content={"nfs": "2"})
    made = plan(new, published(ALL, "debian", "nfs", "iscsi"), history("image-specs/nfs"))
    assert actions(made) == {"debian": "keep", "iscsi": "keep", "nfs": "build"}
    assert why(made, "nfs") == [("spec", 'image-specs/nfs changed in 1a2b3c4 "Do it"')]
    assert made.chains == (("nfs",),)


def test_a_changed_base_rebuilds_its_layers():
    new = tree(BASE, NFS, ISCSI, CIRROS, content={"debian": "2"})
    made = plan(new, published(ALL), history("image-specs/debian"))
    assert actions(made) == {
        "cirros": "keep",
        "debian": "build",
        "iscsi": "build",
        "nfs": "build",
    }
    assert why(made, "nfs") == [("base", "its base debian is built")]
    assert made.chains == (("debian", "iscsi", "nfs"),)


def test_layers_of_a_kept_base_are_chains_of_their_own():
    new = tree(BASE, NFS, ISCSI, content={"nfs": "2", "iscsi": "2"})
    made = plan(new, published(ALL, "debian", "nfs", "iscsi"), history())
    assert made.chains == (("iscsi",), ("nfs",))


def test_a_changed_input_is_named_with_its_commit():
    inputs = {"nfs": ("files/exports", "files/conf.d")}
    old = tree(BASE, NFS, inputs=inputs)
    new = tree(BASE, NFS, inputs=inputs, content={"nfs": "2"})
    made = plan(new, published(old), history("files/conf.d/a"))
    assert why(made, "nfs") == [
        (
            "input",
            (
                "files/conf.d/a in files/conf.d, which image-specs/nfs reads, "
                'changed in 1a2b3c4 "Do it"'
            ),
        )
    ]


def test_a_moved_submodule_is_named():
    inputs = {"nfs": ("vendor/conf/exports",)}
    old = tree(BASE, NFS, inputs=inputs)
    new = tree(BASE, NFS, inputs=inputs, content={"nfs": "2"})
    ((kind, detail),) = why(plan(new, published(old), history("vendor")), "nfs")
    assert kind == "input"
    assert "vendor in vendor" not in detail
    assert detail.startswith("vendor (with vendor/conf/exports), which image-specs/nfs reads")


def test_uncommitted_changes_are_named_in_the_reason():
    new = tree(BASE, content={"debian": "2"}, dirty=["image-specs/debian"])
    made = plan(new, published(tree(BASE)), history())
    detail = "image-specs/debian differs from what is committed"
    assert why(made, "debian") == [("spec", detail)]
    assert made.dirty


def test_a_fingerprint_difference_without_a_changed_file_is_built():
    new = tree(BASE, content={"debian": "2"})
    ((kind, detail),) = why(plan(new, published(tree(BASE)), history()), "debian")
    assert (kind, "though no file of it changed since aaaaaaa" in detail) == ("input", True)
    settings = plan(new, published(tree(BASE)), history("lago-images.toml"))
    assert why(settings, "debian")[0][1].startswith("lago-images.toml changed in")


def test_an_unknown_published_commit_builds_every_difference():
    new = tree(BASE, NFS, content={"debian": "2"})
    made = plan(new, published(tree(BASE, NFS)))
    assert actions(made) == {"debian": "build", "nfs": "build"}
    assert why(made, "debian")[0][1] == (
        "its fingerprint is not that of revision 1, of commit aaaaaaa, "
        "whose history is not known here"
    )
    assert {kind for kind, _ in why(made, "nfs")} == {"base"}


def test_an_old_spec_without_a_release_is_missing():
    made = plan(ALL, published(ALL, "debian", "nfs", "cirros"), history())
    assert why(made, "iscsi") == [
        ("missing", "it is not published, though image-specs/iscsi was there at aaaaaaa")
    ]


def test_an_added_spec_is_new_with_its_commit():
    added = history(Change(status="A", path="image-specs/iscsi"))
    made = plan(ALL, published(ALL, "debian", "nfs", "cirros"), added)
    assert why(made, "iscsi") == [("new", 'image-specs/iscsi was added in 1a2b3c4 "Do it"')]


def test_a_renamed_spec_is_new_and_retires_the_old_name():
    old = tree(spec("old"))
    renamed = Change(status="R", path="image-specs/new", old="image-specs/old")
    made = plan(tree(spec("new")), published(old), history(renamed))
    assert actions(made) == {"new": "build", "old": "retire"}
    assert why(made, "new") == [
        ("new", 'image-specs/new was renamed from image-specs/old in 1a2b3c4 "Do it"')
    ]
    assert image(made, "old").note == (
        "image-specs/old was renamed to image-specs/new; what is published stays"
    )


def test_a_removed_spec_is_retired():
    gone = history(Change(status="D", path="image-specs/cirros"))
    made = plan(tree(BASE), published(tree(BASE, CIRROS)), gone)
    assert actions(made) == {"cirros": "retire", "debian": "keep"}
    assert image(made, "cirros").note == (
        'image-specs/cirros was removed in 1a2b3c4 "Do it"; what is published stays'
    )
    later = plan(tree(BASE), published(tree(BASE, CIRROS)), history())
    assert image(later, "cirros").note == "it has no spec any more; what is published stays"


def test_a_spec_removed_before_the_last_publication_is_found():
    made = plan(
        tree(BASE),
        published(tree(BASE, CIRROS)),
        History(
            head=HEAD,
            since={
                HEAD: since(commit=HEAD),
                OLD: since(Change(status="D", path="image-specs/cirros")),
            },
        ),
        commit=HEAD,
    )
    assert image(made, "cirros").note == (
        'image-specs/cirros was removed in 1a2b3c4 "Do it"; what is published stays'
    )


def test_an_uncommitted_removal_is_named():
    made = plan(tree(BASE, dirty=["image-specs/cirros"]), published(tree(BASE, CIRROS)), history())
    assert image(made, "cirros").note == (
        "image-specs/cirros is removed, not committed; what is published stays"
    )


def test_outside_git_no_commit_is_named():
    outside = {
        key: replace(one, current=replace(one.current, commit="unknown", made_of="unknown"))
        for key, one in published(tree(BASE, CIRROS)).items()
    }
    made = plan(tree(BASE, CIRROS, content={"debian": "2"}), outside, commit=None)
    assert image(made, "cirros").note == "unchanged since revision 1, made outside git"
    assert why(made, "debian") == [
        ("spec", "its fingerprint is not that of revision 1, made outside git")
    ]


def test_another_architecture_is_another_image():
    made = plan(tree(spec("debian", arch="aarch64")), published(tree(BASE)), history())
    assert [(one.arch, str(one.action)) for one in made.images] == [
        *(("aarch64", "build"), ("x86_64", "retire")),
    ]


@pytest.mark.parametrize("ask", [{}, {"force": frozenset({"debian"})}, {"everything": True}])
def test_an_older_checkout_never_replaces_a_newer_image(ask):
    new = tree(BASE, NFS, content={"debian": "2"})
    known = history("image-specs/debian", relation=Relation.NEWER)
    made = plan(new, published(tree(BASE, NFS)), known, **ask)
    assert actions(made) == {"debian": "keep", "nfs": "keep"}
    assert image(made, "debian").note == "revision 1 of commit aaaaaaa is newer than this checkout"


def test_a_layer_waits_for_a_base_that_is_newer_than_the_checkout():
    new = tree(BASE, NFS, content={"debian": "2"})
    known = history("image-specs/debian", relation=Relation.NEWER)
    made = plan(new, published(tree(BASE)), known)
    assert actions(made) == {"debian": "keep", "nfs": "keep"}
    assert "cannot be built while its base debian is kept" in image(made, "nfs").note


def test_a_spec_newer_than_the_checkout_is_not_retired():
    known = history(relation=Relation.NEWER)
    made = plan(tree(BASE), published(tree(BASE, CIRROS)), known)
    assert actions(made) == {"cirros": "keep", "debian": "keep"}


def test_a_diverged_history_is_built():
    new = tree(BASE, content={"debian": "2"})
    known = history("image-specs/debian", relation=Relation.APART)
    assert actions(plan(new, published(tree(BASE)), known)) == {"debian": "build"}


def test_old_images_are_stale_with_their_layers():
    images = published(ALL) | published(ALL, "debian", created=NOW - 30 * DAY)
    assert set(actions(plan(ALL, images, history(), stale_days=31)).values()) == {"keep"}
    made = plan(ALL, images, history(), stale_days=30)
    assert why(made, "debian") == [("stale", "revision 1 was built 30 days ago")]
    assert actions(made)["nfs"] == "build"
    assert actions(made)["cirros"] == "keep"


def changes(*names, gone=()):
    return PackageChanges(
        added=(),
        removed=tuple(Package(name=name, version="1", arch="amd64") for name in gone),
        upgraded=tuple(VersionChange(name=name, old="1", new="2") for name in names),
    )


def outdated(images, upstream, known=None, **ask):
    return plan(ALL, images, known or history(), outdated=True, upstream=upstream, **ask)


SAME = Upstream(packages=changes())


def test_outdated_images_are_built_with_their_layers_and_never_promoted():
    images = published(ALL)
    waiting = build_of(ALL, "debian", number=2)
    images[KEY] = ImageHoldings(current=images[KEY].current, newest=1, waiting=(waiting,))
    upstream = {"debian": Upstream(packages=changes("a", "b", "c", "d", gone=["e"])), "nfs": SAME}
    made = outdated(images, upstream)
    assert why(made, "debian") == [("outdated", "a 1 → 2, b 1 → 2, c 1 → 2 and 2 more")]
    assert why(made, "nfs") == [("base", "its base debian is built")]
    assert made.chains == (("debian", "iscsi", "nfs"),)
    assert outdated(images, upstream, changed=False).chains == made.chains


def test_another_base_is_named_before_packages():
    upstream = {"cirros": Upstream(base="its base is x now", packages=changes("a"))}
    made = outdated(published(ALL), upstream)
    assert why(made, "cirros") == [("outdated", "its base is x now, a 1 → 2")]
    assert made.chains == (("cirros",),)


def test_age_counts_only_where_it_is_not_known_what_is_outdated():
    images = published(ALL, created=NOW - 40 * DAY)
    upstream = {
        "debian": SAME,
        "nfs": Upstream(packages=changes("a"), unknown="why"),
        "iscsi": Upstream(unknown="why"),
    }
    made = outdated(images, upstream, stale_days=30)
    assert actions(made) == {"cirros": "keep", "debian": "keep", "iscsi": "build", "nfs": "build"}
    unknown = "whether a build would give something else cannot be known: why"
    assert why(made, "nfs") == [("outdated", "a 1 → 2")]
    assert why(made, "iscsi") == [("stale", f"revision 1 was built 40 days ago, and {unknown}")]
    assert image(made, "debian").note == f"unchanged since revision 1, of commit {OLD[:7]}"
    for days in (41, None):
        kept = outdated(images, upstream, stale_days=days)
        assert actions(kept)["iscsi"] == "keep"
        assert image(kept, "iscsi").note.endswith(f"; {unknown}")


def test_what_is_outdated_is_not_built_over_a_newer_commits():
    upstream = {"debian": Upstream(packages=changes("a"))}
    made = outdated(published(ALL), upstream, known=history(relation=Relation.NEWER))
    assert set(actions(made).values()) == {"keep"}


def test_a_forced_image_is_built_with_its_layers_and_never_promoted():
    images = published(ALL)
    waiting = build_of(ALL, "debian", number=2)
    images[KEY] = ImageHoldings(current=images[KEY].current, newest=1, waiting=(waiting,))
    made = plan(ALL, images, history(), force=frozenset({"debian"}))
    assert why(made, "debian") == [("forced", "it was asked for")]
    assert made.chains == (("debian", "iscsi", "nfs"),)


def test_naming_images_builds_no_other_change():
    new = tree(BASE, NFS, ISCSI, CIRROS, content={"cirros": "2", "nfs": "2"})
    only = frozenset({"nfs"})
    made = plan(new, published(ALL), history("image-specs/cirros"), changed=False, force=only)
    assert made.chains == (("nfs",),)
    assert image(made, "cirros").note.startswith("not asked for here: image-specs/cirros changed")


def test_a_layer_alone_brings_the_base_it_needs():
    new = tree(BASE, NFS, ISCSI, content={"debian": "2"})
    made = plan(
        new,
        published(ALL, "debian", "nfs", "iscsi"),
        history("image-specs/debian"),
        changed=False,
        force=frozenset({"nfs"}),
    )
    assert made.chains == (("debian", "iscsi", "nfs"),)


def test_an_unknown_name_is_a_usage_error_with_a_suggestion():
    with pytest.raises(UsageError) as caught:
        named(Ask(force=frozenset({"debain"})), ALL)
    assert caught.value.hint == "did you mean 'debian'?"


def test_the_newest_waiting_build_is_promoted():
    new = tree(BASE, content={"debian": "2"})
    waiting = tuple(build_of(new, "debian", number=n, created=NOW + n) for n in (2, 3))
    other = build_of(tree(BASE, content={"debian": "3"}), "debian", number=4)
    current = released(build_of(tree(BASE), "debian"))
    images = {KEY: ImageHoldings(current=current, newest=7, waiting=(*waiting, other))}
    made = plan(new, images, history("image-specs/debian"))
    assert image(made, "debian").action is Action.PROMOTE
    assert image(made, "debian").promote == "debian-3"
    assert image(made, "debian").promote_sha256 == digest("manifest of debian-3")
    assert image(made, "debian").revision == 7
    assert made.chains == ()
    never = plan(new, images, history("image-specs/debian"), promote=False)
    assert actions(never) == {"debian": "build"}


WITH_QCOW2 = replace(ALL, also=frozenset({"qcow2"}))


def test_an_image_without_a_form_that_the_settings_ask_for_is_built_with_its_layers():
    images = {ImageId(*key): held for key, held in published(ALL).items()}
    made = plan(WITH_QCOW2, images, history())
    lacking = "publish-also asks for qcow2, which revision 1 lacks"
    assert why(made, "debian") == why(made, "cirros") == [("input", lacking)]
    assert actions(made)["nfs"] == "build"
    assert suspects(WITH_QCOW2, Holdings(images=images), Ask()) == {OLD}
    whole = {
        key: replace(
            held,
            current=replace(
                held.current, built=replace(held.current.built, also=frozenset({"qcow2"}))
            ),
        )
        for key, held in images.items()
    }
    assert set(actions(plan(WITH_QCOW2, whole, history())).values()) == {"keep"}
    # Who asks for less than there is has nothing to build.
    assert set(actions(plan(ALL, whole, history())).values()) == {"keep"}
    assert suspects(WITH_QCOW2, Holdings(images=whole), Ask()) == frozenset()


def test_a_newer_commits_image_is_not_built_again_for_a_form():
    made = plan(WITH_QCOW2, published(ALL), history(relation=Relation.NEWER))
    assert set(actions(made).values()) == {"keep"}


def test_only_a_waiting_build_in_every_form_is_promoted():
    asking = replace(tree(BASE), also=frozenset({"qcow2"}))
    whole = replace(build_of(asking, "debian", number=2), also=frozenset({"qcow2"}))
    later = build_of(asking, "debian", number=3, created=NOW + 1)
    images = published(asking)
    images[KEY] = ImageHoldings(current=images[KEY].current, newest=1, waiting=(whole, later))
    assert image(plan(asking, images, history()), "debian").promote == "debian-2"
    images[KEY] = ImageHoldings(current=images[KEY].current, newest=1, waiting=(later,))
    assert actions(plan(asking, images, history())) == {"debian": "build"}


def test_only_a_waiting_build_whose_failures_are_held_back_today_is_promoted():
    new = tree(BASE, content={"debian": "2"})
    waiting = replace(build_of(new, "debian", number=2), failed=frozenset({"debian.test"}))
    current = released(build_of(tree(BASE), "debian"))
    images = {KEY: ImageHoldings(current=current, newest=1, waiting=(waiting,))}
    changed = history("image-specs/debian")
    assert actions(plan(new, images, changed)) == {"debian": "build"}
    for until, action in ((day(NOW), "promote"), (day(NOW - DAY), "build")):
        entry = QuarantineEntry(test="debian.*", issue="https://x/", until=until)
        held = replace(new, quarantine=Quarantine(entries=(entry,)))
        assert actions(plan(held, images, changed)) == {"debian": action}


def test_a_waiting_build_does_not_replace_an_unchanged_image():
    """Who may write builds/* could otherwise replace any image without a merge."""
    images = published(ALL)
    waiting = build_of(ALL, "debian", number=2, created=NOW + 1)
    images[KEY] = ImageHoldings(current=images[KEY].current, newest=1, waiting=(waiting,))
    made = plan(ALL, images, history())
    assert set(actions(made).values()) == {"keep"}


def test_a_build_that_gc_may_remove_soon_is_not_promoted():
    new = tree(BASE, content={"debian": "2"})
    waiting = build_of(new, "debian", number=2, created=NOW - 2 * DAY + 60)
    images = {KEY: ImageHoldings(newest=0, waiting=(waiting,))}
    added = history(Change(status="A", path="image-specs/debian"))
    assert actions(plan(new, images, added, promote_days=2)) == {"debian": "promote"}
    assert actions(plan(new, images, added, promote_days=1)) == {"debian": "build"}
    assert actions(plan(new, images, added, now=NOW + 60, promote_days=2)) == {"debian": "build"}


def test_a_layer_is_promoted_only_on_the_base_it_was_built_on():
    new = tree(BASE, NFS, ISCSI, content={"debian": "2"})
    images = published(ALL, "debian", "nfs", "iscsi")
    for name, base in (("debian", 0), ("nfs", 2), ("iscsi", 1)):
        waiting = build_of(new, name, number=2, base=base)
        key = (name, "x86_64")
        images[key] = ImageHoldings(current=images[key].current, newest=1, waiting=(waiting,))
    made = plan(new, images, history("image-specs/debian"))
    assert actions(made) == {"debian": "promote", "iscsi": "build", "nfs": "promote"}
    assert made.chains == (("debian", "iscsi"),)


def test_a_layer_is_promoted_on_a_kept_base():
    new = tree(BASE, NFS, content={"nfs": "2"})
    images = published(tree(BASE, NFS))
    waiting = build_of(new, "nfs", number=2, base=1)
    key = ("nfs", "x86_64")
    images[key] = ImageHoldings(current=images[key].current, newest=1, waiting=(waiting,))
    assert actions(plan(new, images, history()))["nfs"] == "promote"
    gone = build_of(new, "nfs", number=2, base=9)
    images[key] = ImageHoldings(current=images[key].current, newest=1, waiting=(gone,))
    assert actions(plan(new, images, history()))["nfs"] == "build"


def test_a_layer_on_an_older_build_of_its_base_is_rebuilt():
    images = published(ALL)
    rebuilt = build_of(ALL, "debian", number=2)
    images[KEY] = ImageHoldings(current=released(rebuilt, revision=2), newest=2)
    made = plan(ALL, images, history())
    assert actions(made) == {
        "cirros": "keep",
        "debian": "keep",
        "iscsi": "build",
        "nfs": "build",
    }
    assert why(made, "nfs") == [("base", "its base debian was released since as another build")]


OFFERED = f"sha256:{digest('debian-1')}"


@pytest.mark.parametrize("claim", ["build:None", "sha256:", "sha256:None", "", OFFERED])
def test_no_layer_is_promoted_while_its_base_is_built(claim):
    """A planted build may say that it stands on nothing, or on what is to be replaced."""
    new = tree(BASE, NFS, content={"debian": "2"})
    images = published(tree(BASE, NFS))
    planted = replace(build_of(new, "nfs", number=2), base=claim)
    key = ("nfs", "x86_64")
    images[key] = ImageHoldings(current=images[key].current, newest=1, waiting=(planted,))
    made = plan(new, images, history("image-specs/debian"))
    assert actions(made) == {"debian": "build", "nfs": "build"}
    assert made.chains == (("debian", "nfs"),)


def test_a_layer_on_other_bytes_of_the_offered_build_is_not_promoted():
    """The base was overwritten when the layer was built, and is restored."""
    new = tree(BASE, NFS, content={"nfs": "2"})
    images = published(tree(BASE, NFS))
    key = ("nfs", "x86_64")
    poisoned = replace(build_of(new, "nfs", number=2), base=f"sha256:{digest('poison')}")
    images[key] = ImageHoldings(current=images[key].current, newest=1, waiting=(poisoned,))
    assert actions(plan(new, images, history()))["nfs"] == "build"


def test_a_released_layer_on_other_bytes_of_its_base_is_rebuilt():
    images = published(ALL)
    key = ("nfs", "x86_64")
    poisoned = replace(build_of(ALL, "nfs"), base=f"sha256:{digest('poison')}")
    images[key] = ImageHoldings(current=released(poisoned), newest=1)
    assert {
        name for name, action in actions(plan(ALL, images, history())).items() if action == "build"
    } == {"nfs"}


@pytest.mark.parametrize("content", ["", "2"])
def test_a_release_with_a_damaged_disk_is_rebuilt_even_if_a_build_waits(content):
    """A damaged byte must not make whatever waits under the fingerprint public."""
    new = tree(BASE, content={"debian": content})
    current = replace(released(build_of(tree(BASE), "debian")), built=None)
    waiting = (build_of(new, "debian", number=2),)
    images = {KEY: ImageHoldings(current=current, newest=4, waiting=waiting)}
    made = plan(new, images, history())
    assert actions(made) == {"debian": "build"}
    assert "missing" in {kind for kind, _ in why(made, "debian")}
    assert image(made, "debian").promote_sha256 is None


@pytest.mark.parametrize("newest", [0, 2])
def test_a_missing_image_is_built_even_if_a_build_waits(newest):
    """Also where every revision was withdrawn, and the spec has changed since."""
    waiting = (build_of(tree(BASE), "debian", number=2),)
    images = {KEY: ImageHoldings(newest=newest, waiting=waiting)}
    made = plan(tree(BASE), images, history())
    assert ([kind for kind, _ in why(made, "debian")], actions(made)) == (
        ["missing"],
        {"debian": "build"},
    )


def test_a_release_whose_build_is_lost_is_missing():
    current = released(build_of(ALL, "debian"))
    lost = replace(current, revision=4, build="debian-1", built=None)
    made = plan(tree(BASE), {KEY: ImageHoldings(current=lost, newest=4)}, history())
    assert why(made, "debian") == [
        ("missing", "revision 4 names build debian-1, which is missing or damaged")
    ]


def test_a_withdrawn_image_is_not_rebuilt_unless_forced():
    new = tree(BASE, NFS, content={"debian": "2"})
    held = {new.fingerprints["debian"]: "revision 2 was withdrawn: it does not boot"}
    waiting = (build_of(new, "debian", number=3),)
    current = released(build_of(tree(BASE), "debian"))
    images = {KEY: ImageHoldings(current=current, newest=3, taken_back=held, waiting=waiting)}
    made = plan(new, images, history("image-specs/debian"))
    assert actions(made) == {"debian": "keep", "nfs": "keep"}
    assert image(made, "debian").note == (
        "revision 2 was withdrawn: it does not boot; change its spec, or name it to build it again"
    )
    asked = plan(new, images, history(), force=frozenset({"debian"}))
    assert actions(asked) == {"debian": "build", "nfs": "build"}
    fixed = tree(BASE, NFS, content={"debian": "3"})
    assert actions(plan(fixed, images, history()))["debian"] == "build"


@pytest.mark.parametrize("days", [None, 30])
@pytest.mark.parametrize("content", ["1", "2"])
def test_a_scheduled_run_does_not_rebuild_a_withdrawn_image(content, days):
    new = tree(BASE, content={"debian": content})
    held = {new.fingerprints["debian"]: "revision 3 rolled it back: back to revision 1"}
    current = released(
        build_of(tree(BASE, content={"debian": "1"}), "debian", created=NOW - 40 * DAY)
    )
    images = {KEY: ImageHoldings(current=current, newest=3, taken_back=held)}
    assert actions(plan(new, images, history(), stale_days=days)) == {"debian": "keep"}
    asked = plan(new, images, history(), stale_days=days, force=frozenset({"debian"}))
    assert actions(asked) == {"debian": "build"}


def test_an_image_with_all_revisions_withdrawn_is_kept_until_its_spec_changes():
    held = {tree(BASE).fingerprints["debian"]: "revision 1 was withdrawn"}
    images = {KEY: ImageHoldings(newest=2, taken_back=held)}
    assert actions(plan(tree(BASE), images, history())) == {"debian": "keep"}
    changed = plan(tree(BASE, content={"debian": "2"}), images, history())
    assert why(changed, "debian") == [
        ("missing", "every revision of it is withdrawn: revision 1 was withdrawn")
    ]


def test_a_pull_request_builds_the_images_it_changes_and_their_bases():
    new = tree(BASE, NFS, ISCSI, CIRROS, content={"cirros": "2", "nfs": "2"})
    scope = since("image-specs/nfs")
    known = history("image-specs/cirros", "image-specs/nfs", scope=scope)
    made = plan(new, published(ALL), known)
    assert made.chains == (("nfs",),)
    assert image(made, "cirros").note.startswith("not asked for here")
    new = tree(BASE, NFS, ISCSI, CIRROS, content={"debian": "2", "nfs": "2"})
    assert plan(new, published(ALL), known).chains == (("debian", "iscsi", "nfs"),)


def test_a_pull_request_that_changes_template_sources_builds_their_images():
    fedora = spec("fedora", "libguestfs:fedora-42")
    old, new = tree(BASE, fedora), tree(BASE, fedora, content={"fedora": "2"})
    known = history("lago-images.toml", scope=since("lago-images.toml"))
    assert plan(new, published(old), known).chains == (("fedora",),)


names = st.lists(
    st.text(alphabet="abcdefgh", min_size=1, max_size=3), min_size=1, max_size=12, unique=True
)


@st.composite
def forests(draw):
    """Specs in layers upon each other, in any order."""
    found: list = []
    for name in draw(names):
        base = draw(st.sampled_from(["bootstrap:debian-12", *(f"layer:{s.name}" for s in found)]))
        found.append(spec(name, base))
    return tree(*draw(st.permutations(found)))


@given(old=forests(), data=st.data())
def test_a_plan_is_closed_over_layers_and_in_order(old, data):
    choose = st.sets(st.sampled_from(sorted(old.specs)))
    content = dict.fromkeys(data.draw(choose, "changed"), "2")
    new = tree(*old.specs.values(), content=content)
    there = data.draw(choose, "published")
    images = published(old, *there) if there else {}
    made = plan(new, images, history(), changed=data.draw(st.booleans()))
    at_work = {one.name for one in made.images if one.action is Action.BUILD}
    in_chains = [name for chain in made.chains for name in chain]
    assert sorted(in_chains) == sorted(at_work)
    for chain in made.chains:
        for name in chain:
            base = new.specs[name].base.name
            assert base not in at_work or chain.index(base) < chain.index(name)
    for name, one in new.specs.items():
        assert (one.base.name in at_work) <= (name in at_work)
        assert bool(image(made, name).reasons) == (name in at_work)
        if name not in at_work:
            assert image(made, name).note
