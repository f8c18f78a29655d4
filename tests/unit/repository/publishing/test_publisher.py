import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lago_images.console import Console
from lago_images.errors import (
    ConflictError,
    RepositoryError,
    SigningError,
    StorageError,
    TamperedError,
)
from lago_images.repository.publishing import withdrawals
from lago_images.repository.publishing.copying import Judged, PublicCopy
from lago_images.repository.publishing.pages import read_pages, write_pages
from lago_images.repository.publishing.publisher import _read_before, publishing
from lago_images.repository.publishing.releasing import (
    Decision,
    Verdict,
    create,
    following,
    read_history,
    record_commit,
)
from lago_images.repository.publishing.releasing import release as make_public
from lago_images.repository.records import layout
from lago_images.repository.records.layout import PUBLISHED
from lago_images.repository.records.release import OldRepositoryError, PackageDiff, Released
from lago_images.repository.records.standing import taken_back
from lago_images.repository.records.state import read, survey
from lago_images.repository.rendering.index import parse
from lago_images.repository.rendering.render import render
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    SITE,
    bound,
    copy_of,
    files_of,
    judged,
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


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# The history of these tests' git repository: c1, c2 and c3 in order, d1 apart from them.
LINE = ["c1", "c2", "c3"]


def is_ancestor(one, other):
    if "gone" in (one, other):
        return None
    if one == other:
        return True
    return one in LINE and other in LINE and LINE.index(one) < LINE.index(other)


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(path=tmp_path / "repo")


def public(store, made, *, commit="c1", known=0):
    decision = Decision(
        released=Released(commit=commit),
        known_revision=known,
        is_ancestor=is_ancestor,
        now=lambda: 1_700_000_000.9,
    )
    return make_public(store, judged(made), decision)


UNSIGNED = ("images.json", "SHA256SUMS", "index", "repo.metadata", "feed.xml", "index.html")


def pages_of(name):
    return (f"catalogue/{name}.html", f"catalogue/{name}.xml", f"latest/{name}.x86_64.json")


def refresh(store, *, recheck=False, **more):
    def no_key(_armour):
        raise AssertionError("no key is published here")

    made = publisher(store, fingerprint=no_key, **more)
    return made.refresh(wait=lambda _attempt: None, recheck=recheck)


def index_of(store):
    entries, problems = parse(store.get("index").data)
    assert problems == []
    return {entry.name: entry.revision for entry in entries}


def test_the_first_release_is_revision_one(store):
    put_build(store, manifest())
    outcome = public(store, manifest())
    assert outcome.verdict is Verdict.RELEASED
    assert outcome.release.revision == 1
    assert outcome.release.published == 1_700_000_000
    assert read(store).current("debian-12", "x86_64") == outcome.release


def test_releasing_the_same_build_again_changes_nothing(store):
    put_build(store, manifest())
    public(store, manifest())
    assert public(store, manifest()).verdict is Verdict.ALREADY
    assert len(read_history(store, "debian-12", "x86_64")) == 1


def test_two_builds_of_one_fingerprint_leave_one_release(store):
    for build in ("b1", "b2"):
        put_build(store, manifest(build_id=build))
    public(store, manifest(build_id="b1"))
    second = public(store, manifest(build_id="b2"))
    assert second.verdict is Verdict.ALREADY
    assert second.release.build == "b1"


def test_a_stale_image_built_again_is_a_new_revision(store):
    for build in ("b1", "b2"):
        put_build(store, manifest(build_id=build))
    public(store, manifest(build_id="b1"))
    second = public(store, manifest(build_id="b2"), known=1)
    assert (second.verdict, second.release.revision) == (Verdict.RELEASED, 2)


def test_an_older_commit_never_replaces_a_newer_ones_image(store):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b2", fingerprint="f2"), commit="c2")
    late = public(store, manifest(build_id="b1", fingerprint="f1"), commit="c1")
    assert late.verdict is Verdict.SUPERSEDED
    assert late.release.released.commit == "c2"
    assert read(store).current("debian-12", "x86_64").build == "b2"


@pytest.mark.parametrize(
    ("commit", "verdict"), [("c1", Verdict.SUPERSEDED), ("c3", Verdict.RELEASED)]
)
def test_an_older_commit_does_not_replace_a_withdrawn_newer_image(store, commit, verdict):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b2", fingerprint="f2"), commit="c2")
    put_release(store, release(2, None, commit="c2", withdraws=1, reason="bad"))
    late = public(store, manifest(build_id="b1", fingerprint="f1"), commit=commit)
    assert late.verdict is verdict


def reverted(store):
    """A published image, and a build of a commit that another one reverted."""
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b1", fingerprint="f1"), commit="c1")
    return manifest(build_id="b2", fingerprint="f2")


def test_an_older_commit_does_not_replace_an_image_that_a_newer_commit_left_unchanged(store):
    late = reverted(store)
    record_commit(store, "c3", is_ancestor=is_ancestor)
    outcome = public(store, late, commit="c2", known=1)
    assert (outcome.verdict, outcome.release.build) == (Verdict.SUPERSEDED, "b1")
    assert read(store).newest("debian-12", "x86_64") == 1


@pytest.mark.parametrize("commit", ["c3", "d1", "gone"])
def test_a_published_commit_that_is_not_newer_supersedes_nothing(store, commit):
    made = reverted(store)
    record_commit(store, "c2", is_ancestor=is_ancestor)
    assert public(store, made, commit=commit, known=1).verdict is Verdict.RELEASED


def test_an_older_commit_may_rebuild_an_image_that_a_newer_one_left_unchanged(store):
    reverted(store)
    record_commit(store, "c3", is_ancestor=is_ancestor)
    again = manifest(build_id="b3", fingerprint="f1")
    put_build(store, again)
    assert public(store, again, commit="c2", known=1).verdict is Verdict.RELEASED


def test_a_concurrently_published_newer_commit_wins(store):
    class Meanwhile(DirectoryStore):
        def put(self, key, data, **more):
            done = super().put(key, data, **more)
            if key.endswith("/2.json"):
                record_commit(store, "c3", is_ancestor=is_ancestor)
            return done

    late = reverted(store)
    outcome = public(Meanwhile(path=store.path), late, commit="c2", known=1)
    assert (outcome.verdict, outcome.release.revision) == (Verdict.SUPERSEDED, 3)
    current = read(store).current("debian-12", "x86_64")
    assert (current.build, current.released.commit) == ("b1", "c3")
    # Nobody took the change back: it may be published again later.
    assert taken_back(read(store).history("debian-12", "x86_64")) == {}


@pytest.mark.parametrize("commit", ["c2", "c3", "d1", "gone"])
def test_a_commit_that_is_not_older_replaces_the_image(store, commit):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b1", fingerprint="f1"), commit="c2")
    next_ = public(store, manifest(build_id="b2", fingerprint="f2"), commit=commit)
    assert (next_.verdict, next_.release.revision) == (Verdict.RELEASED, 2)


def test_a_withdrawn_build_is_not_released_again(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2", fingerprint="f2"))
    put_release(store, release(3, None, withdraws=2))
    outcome = public(store, manifest(build_id="b2", fingerprint="f2"), commit="c3", known=3)
    assert outcome.verdict is Verdict.WITHDRAWN


def test_a_withdrawal_takes_the_next_revision_number(store):
    publish_by_hand(store, manifest(build_id="b1"))
    put_release(store, release(2, None, withdraws=1))
    put_build(store, manifest(build_id="b2"))
    assert public(store, manifest(build_id="b2"), known=2).release.revision == 3


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "manifest"])
def test_an_incomplete_build_is_not_released(store, part):
    staging = put_build(store, manifest())
    store.delete([getattr(staging, part)])
    with pytest.raises(RepositoryError, match="cannot be released") as caught:
        public(store, manifest())
    assert "ci rebuild debian-12" in caught.value.hint
    assert list(store.list("releases/")) == []


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "manifest"])
def test_a_build_with_an_object_of_another_is_not_released(store, part):
    staging = put_build(store, manifest())
    overwrite(store, getattr(staging, part), b"[1]")
    with pytest.raises(TamperedError, match=getattr(staging, part)):
        public(store, manifest())
    assert list(store.list("images/")) == list(store.list("releases/")) == []


def unread(made):
    return Judged(manifest=made, sha256="0" * 64)


@pytest.mark.parametrize("name", ["a\n[b]\nfile=x", "tab\tbed", "bell\x07", "\ud800"])
def test_a_build_with_properties_that_no_index_may_hold_is_not_released(store, name, monkeypatch):
    made = manifest(properties={"name": name})
    monkeypatch.setattr("tests.unit.repository.publishing.test_publisher.judged", unread)
    with pytest.raises(RepositoryError, match="property name"):
        public(store, made)


def copies(store):
    """The folders of all public copies."""
    return {stat.key.rpartition("/")[0] for stat in store.list("images/")}


def contents(store, folder):
    return {s.key.removeprefix(folder): store.get(s.key).data for s in store.list(folder)}


def test_a_release_binds_a_copy_of_what_was_staged(store):
    staging = put_build(store, manifest())
    image = public(store, manifest()).release.image
    assert re.fullmatch(r"b1\.[0-9a-f]{8}", image.folder)
    assert contents(store, image.public.folder) == files_of(manifest())
    assert contents(store, staging.folder) == files_of(manifest())
    assert {name: (len(data), sha256(data)) for name, data in files_of(manifest()).items()} == {
        name: (true.size, true.sha256) for name, true in image.objects.items()
    }


def test_changes_of_a_staged_build_after_its_release_have_no_effect(store):
    """Who holds the builder's credentials overwrites all of it: nothing public changes."""
    staging = put_build(store, manifest())
    public(store, manifest())
    refresh(store)
    before = {s.key: store.get(s.key).data for s in store.list() if "builds/" not in s.key}
    for stat in list(store.list(staging.folder)):
        overwrite(store, stat.key, b"evil")
    assert refresh(store).written == ()
    put_build(store, manifest("other"))
    public(store, manifest("other"))
    refresh(store)
    after = {s.key: store.get(s.key).data for s in store.list()}
    assert b"evil" not in b"".join(after[name] for name in ("index", "repo.metadata"))
    rendered = {*layout.RENDERED, "state/cache.json", "state/pages.json"}
    assert {k: after[k] for k in before.keys() - rendered} == {
        k: before[k] for k in before.keys() - rendered
    }


def test_an_overwritten_build_is_refused_with_both_digests(store):
    """Whole and in itself right: only the digest that was judged tells it from the true one."""
    staging = put_build(store, manifest())
    forged = replace(manifest(), commit="evil")
    overwrite(store, staging.manifest, forged.to_json())
    with pytest.raises(TamperedError) as caught:
        public(store, manifest())
    for made in (manifest(), forged):
        assert sha256(made.to_json()) in caught.value.message
    assert copies(store) == set()


def test_a_disk_with_other_bytes_is_never_copied(store):
    staging = put_build(store, manifest())
    data = store.get(staging.disk).data
    overwrite(store, staging.disk, bytes(len(data)))
    with pytest.raises(TamperedError, match=staging.disk):
        public(store, manifest())
    assert copies(store) == set()


def test_a_qcow2_is_copied_bound_and_listed(store):
    made = with_qcow2(manifest())
    put_build(store, made)
    image = public(store, made).release.image
    assert contents(store, image.public.folder) == files_of(made)
    assert list(image.also) == ["qcow2"]
    refresh(store)
    line = f"{made.also['qcow2'].sha256}  {image.public.also('qcow2')}\n"
    assert line.encode() in store.get(layout.SUMS).data
    latest = json.loads(store.get(layout.latest(made.key.image)).data)["revision"]
    assert latest["also"] == {
        "qcow2": {
            "url": f"{SITE.base_url}/{image.public.also('qcow2')}",
            "size": made.also["qcow2"].size,
            "sha256": made.also["qcow2"].sha256,
        }
    }


def test_a_qcow2_with_other_bytes_is_never_copied(store):
    made = with_qcow2(manifest())
    staging = put_build(store, made)
    overwrite(store, staging.also("qcow2"), bytes(made.also["qcow2"].size))
    with pytest.raises(TamperedError, match=staging.also("qcow2")):
        public(store, made)
    assert copies(store) == set()


def test_a_qcow2_of_another_size_or_missing_is_refused(store):
    made = with_qcow2(manifest())
    staging = put_build(store, made)
    overwrite(store, staging.also("qcow2"), b"[1]")
    with pytest.raises(TamperedError, match="has 3 bytes"):
        public(store, made)
    store.delete([staging.also("qcow2")])
    with pytest.raises(RepositoryError, match="is missing"):
        public(store, made)
    assert survey(store).incomplete == {made.key}
    assert copies(store) == set()


def test_a_qcow2_that_was_not_built_cannot_be_released(store):
    made = manifest()
    put_build(store, made)
    asking = replace(judged(made), also=frozenset({"qcow2"}))
    with pytest.raises(RepositoryError, match="it was not built as qcow2"):
        PublicCopy(store=store, judged=asking).image(None)
    assert copies(store) == set()


def test_a_qcow2_that_was_not_asked_for_stays_staged(store):
    made = with_qcow2(manifest())
    put_build(store, made)
    image = PublicCopy(store=store, judged=replace(judged(made), also=frozenset())).image(None)
    assert image.also == {}
    assert contents(store, image.public.folder).keys() == files_of(made).keys() - {
        "debian-12.qcow2"
    }


def test_a_release_of_another_qcow2_than_the_manifests_is_refused(store):
    made = with_qcow2(manifest())
    good = release(1, made)
    other = replace(good.image.objects["debian-12.qcow2"], sha256="0" * 64)
    objects = {**good.image.objects, "debian-12.qcow2": other}
    bad = replace(good, image=replace(good.image, objects=objects))
    with pytest.raises(RepositoryError, match="is not the qcow2 of the manifest"):
        type(bad).parse(bad.to_json(), bad.key)


def test_a_build_overwritten_while_it_is_copied_is_refused(store, monkeypatch):
    staging = put_build(store, manifest())
    real = DirectoryStore.copy

    def copy(self, source, target, **more):
        overwrite(store, staging.disk, self.get(staging.disk).data)
        real(self, source, target, **more)

    monkeypatch.setattr(DirectoryStore, "copy", copy)
    with pytest.raises(TamperedError, match="not what was judged"):
        public(store, manifest())
    assert copies(store) == set()


def test_a_foreign_file_in_a_build_is_not_copied(store):
    staging = put_build(store, manifest())
    put(store, f"{staging.folder}index.html", b"<script>")
    image = public(store, manifest()).release.image
    assert contents(store, image.public.folder) == files_of(manifest())


class CrashError(Exception):
    pass


@pytest.mark.parametrize("at", range(6))
def test_a_crash_before_the_release_leaves_the_old_repository(store, monkeypatch, at):
    """After any object of the copy: nothing names it, and the next publication copies again."""
    put_build(store, manifest())
    real, puts = DirectoryStore.put, []

    def put(self, key, data, **more):
        if key.startswith(("images/", "releases/")):
            puts.append(key)
            if len(puts) > at:
                raise CrashError
        return real(self, key, data, **more)

    monkeypatch.setattr(DirectoryStore, "put", put)
    monkeypatch.setattr(PublicCopy, "remove", lambda _self: None)
    if at < 5:
        with pytest.raises(CrashError):
            public(store, manifest())
        assert list(store.list("releases/")) == []
        monkeypatch.undo()
    left = copies(store)
    outcome = public(store, manifest())
    refresh(store)
    assert outcome.release.revision == 1
    assert index_of(store) == {"debian-12": 1}
    assert outcome.release.public.folder.rstrip("/") not in left - copies(store)
    assert contents(store, outcome.release.public.folder) == files_of(manifest())


def test_two_publishers_of_one_build_make_one_release_and_one_copy(store, monkeypatch):
    put_build(store, manifest())
    real, others = PublicCopy.image, []

    def image(self, base):
        made = real(self, base)
        if not others:
            others.append(None)
            others[0] = public(store, manifest())
        return made

    monkeypatch.setattr(PublicCopy, "image", image)
    outcome = public(store, manifest())
    assert (outcome.verdict, others[0].verdict) == (Verdict.ALREADY, Verdict.RELEASED)
    assert copies(store) == {others[0].release.public.folder.rstrip("/")}


def test_the_copy_stays_where_writing_the_release_failed_unclearly(store, monkeypatch):
    """The copy stays then: a release may name it."""
    put_build(store, manifest())
    real = DirectoryStore.put

    def put(self, key, data, **more):
        real(self, key, data, **more)
        if key.startswith("releases/"):
            raise StorageError("no answer")

    monkeypatch.setattr(DirectoryStore, "put", put)
    with pytest.raises(StorageError, match="no answer"):
        public(store, manifest())
    assert copies(store) == {read(store).current("debian-12", "x86_64").public.folder.rstrip("/")}


BASE = manifest("base", "b0")


def test_a_layer_binds_the_release_of_its_base(store):
    publish_by_hand(store, BASE)
    layer = manifest("layer", base=layer_on(BASE))
    put_build(store, layer)
    assert public(store, layer).release.image.base == bound(BASE, 1)


def test_a_layer_on_a_poisoned_base_is_refused_once_the_base_is_restored(store):
    """It was built while other bytes lay there: its digest of the base tells."""
    publish_by_hand(store, BASE)
    poisoned = replace(layer_on(BASE), digest="sha256:" + "6" * 64)
    layer = manifest("layer", base=poisoned)
    put_build(store, layer)
    with pytest.raises(TamperedError, match=r"6666.*as it is released, has sha256:"):
        public(store, layer)
    assert copies(store) == {copy_of(BASE).folder.rstrip("/")}


@pytest.mark.parametrize("why", ["withdrawn", "retired", "never"])
def test_a_layer_on_a_base_that_is_not_offered_is_refused(store, why):
    if why != "never":
        publish_by_hand(store, BASE)
    if why == "withdrawn":
        put_release(store, release(2, None, "base", withdraws=1))
    elif why == "retired":
        put(store, copy_of(BASE).retirement, b"{}")
    layer = manifest("layer", base=layer_on(BASE))
    put_build(store, layer)
    with pytest.raises(RepositoryError, match="stands on the build b0 of base, which is not off"):
        public(store, layer)


def test_a_layer_without_the_build_of_its_base_is_refused(store):
    publish_by_hand(store, BASE)
    layer = manifest("layer", base=replace(layer_on(BASE), build=""))
    put_build(store, layer)
    with pytest.raises(RepositoryError, match="the build unknown of base"):
        public(store, layer)


def test_a_copy_without_a_release_is_neither_offered_nor_a_build(store):
    put_copy(store, manifest())
    refresh(store)
    assert index_of(store) == {}
    assert survey(store).staged == {}


def test_publishing_to_a_repository_of_the_older_layout_is_refused(store):
    put(store, "index", b"[a]\nfile=builds/a/x86_64/b/a.qcow2.xz\n")
    with (
        pytest.raises(OldRepositoryError, match="older lago-images"),
        publishing(
            store, Settings(), console=Console(quiet=True), environ=dict(os.environ), now=float
        ),
    ):
        pass


STRANGE = b"[el7]\nname=x\nfile=el7.qcow2.xz\n\n[a]\nfile=images/a.xz\n"


def test_an_index_of_another_program_is_not_replaced(store):
    put(store, "index", STRANGE)
    put_build(store, manifest())
    settings, console = Settings(), Console(quiet=True)
    with (
        pytest.raises(RepositoryError, match="has an index of another program, whose images"),
        publishing(store, settings, console=console, environ=dict(os.environ), now=float),
    ):
        pass
    assert store.get("index").data == STRANGE
    # One that was damaged in a repository of ours is made anew.
    public(store, manifest())
    overwrite(store, "index", STRANGE)
    with publishing(store, settings, console=console, environ=dict(os.environ), now=float) as made:
        made.refresh()
    assert list(index_of(store)) == ["debian-12"]


def test_concurrent_publishers_take_different_revisions(store):
    builds = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in range(16)]
    for made in builds:
        put_build(store, made)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda made: public(store, made), builds))
    assert sorted(o.release.revision for o in outcomes) == list(range(1, 17))


def test_a_release_whose_response_was_lost_is_recognised(store, monkeypatch):
    put_build(store, manifest())
    real = DirectoryStore.put

    def put_and_lose_the_answer(self, key, data, **more):
        etag = real(self, key, data, **more)
        if key.startswith("releases/"):
            raise ConflictError(key)
        return etag

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put", put_and_lose_the_answer)
        outcome = public(store, manifest())
    assert outcome.verdict is Verdict.RELEASED
    assert [r.nonce for r in read_history(store, "debian-12", "x86_64")] == [outcome.release.nonce]


def test_a_revision_taken_by_another_publisher_is_not_overwritten(store, monkeypatch):
    first, second = manifest(build_id="b1"), manifest(build_id="b2", fingerprint="f2")
    for made in (first, second):
        put_build(store, made)
    meanwhile(monkeypatch, "releases/debian-12/x86_64/1.json", lambda: public(store, second))
    assert public(store, first, commit="c2").release.revision == 2
    assert [one.build for one in read_history(store, "debian-12", "x86_64")] == ["b2", "b1"]


def test_a_copy_that_gc_has_begun_to_remove_is_not_released(store):
    publish_by_hand(store, manifest())
    put(store, copy_of(manifest()).retirement, b"{}")
    with pytest.raises(RepositoryError, match="repo gc has begun to remove it"):
        create(store, "debian-12", "x86_64", lambda past: following(past[0], past, 0.0))
    assert len(read_history(store, "debian-12", "x86_64")) == 1


def test_a_decision_against_a_release_writes_nothing(store):
    assert create(store, "a", "x86_64", lambda _history: None) is None
    assert list(store.list()) == []


def test_a_refresh_writes_only_changed_files(store):
    publish_by_hand(store, manifest())
    assert refresh(store).written == (*pages_of("debian-12"), *UNSIGNED)
    assert refresh(store).written == ()
    publish_by_hand(store, manifest("other"))
    assert refresh(store).written == (*pages_of("other"), *UNSIGNED)
    assert index_of(store) == {"debian-12": 1, "other": 1}


def test_a_layers_page_and_its_bases_are_one_family(store):
    base, layer = manifest(), manifest("layer", base=layer_on(manifest(), 1))
    publish_by_hand(store, base, layer, manifest("other"))
    refresh(store)
    put_release(store, release(2, layer, base=bound(base, 1)))
    changed = ("catalogue/debian-12.html", *pages_of("layer"))
    assert refresh(store).written == (*changed, *UNSIGNED)


def test_pages_without_a_cached_digest_are_compared_and_not_rewritten(store):
    publish_by_hand(store, manifest(), manifest("other"))
    refresh(store)
    store.delete(["state/pages.json"])
    assert refresh(store).written == ()
    store.put("state/pages.json", b"no", expected=store.head("state/pages.json").etag)
    assert refresh(store).written == ()


@pytest.mark.parametrize("key", ["catalogue/debian-12.html", "latest/debian-12.x86_64.json"])
def test_a_page_changed_by_another_hand_is_rewritten(store, key):
    publish_by_hand(store, manifest(), manifest("other"))
    refresh(store)
    right = store.get(key).data
    overwrite(store, key, b"changed")
    assert refresh(store).written == (key,)
    store.delete([key])
    assert refresh(store).written == (key,)
    assert store.get(key).data == right


def test_cached_digests_of_pages_are_checked_on_request(store):
    publish_by_hand(store, manifest())
    refresh(store)
    key = "catalogue/debian-12.html"
    overwrite(store, key, b"changed")
    cached = json.loads(store.get("state/pages.json").data)
    cached["pages"][key][0] = store.head(key).etag
    overwrite(store, "state/pages.json", json.dumps(cached).encode())
    assert refresh(store).written == ()
    assert refresh(store, recheck=True).written == (key,)


def test_a_page_written_concurrently_restarts_the_refresh(store):
    publish_by_hand(store, manifest())
    refresh(store)
    one = publisher(store)
    ahead = replace(one, before=_read_before(store, one.signer))
    put_release(store, release(2, "b1"))
    refresh(store)
    put_release(store, release(3, "b1"))
    assert ahead.refresh(wait=lambda _attempt: None).attempts == 2
    assert b"Revision 3" in store.get("catalogue/debian-12.html").data


def test_rendered_files_are_written_in_the_order_of_the_layout(store):
    class Watched(DirectoryStore):
        def put(self, key, data, **more):
            written.append(key)
            return super().put(key, data, **more)

    written = []
    publish_by_hand(store, manifest())
    publisher(Watched(path=store.path)).refresh()
    rendered = [key for key in written if layout.is_rendered(key)]
    others = [key for key in rendered if key in layout.RENDERED]
    assert {layout.INDEX, layout.METADATA, layout.CATALOGUE} <= set(others)
    assert layout.in_writing_order(others) == others
    # Pages are written side by side, and before what names them.
    pages = len(rendered) - len(others)
    assert set(rendered[:pages]) == {"catalogue/debian-12.html", "catalogue/debian-12.xml",
                                     "latest/debian-12.x86_64.json"}  # fmt: skip
    assert layout.in_writing_order(rendered[::-1])[pages:] == others


def test_keys_are_written_first_and_each_signed_index_before_the_one_without_a_name():
    key, signed = layout.key_file("AB" * 20), layout.signed_index("AB" * 20)
    names = [signed, *layout.RENDERED, layout.page("debian-12"), key]
    order = layout.in_writing_order(names)
    assert order[:2] == [key, "catalogue/debian-12.html"]
    at = order.index(signed)
    assert order[at - 1 : at + 2] == [layout.INDEX, signed, layout.SIGNED_INDEX]


def test_a_page_does_not_overwrite_a_newer_one(store):
    publish_by_hand(store, manifest())
    refresh(store)
    before, key = read_pages(store), "catalogue/debian-12.html"
    put_release(store, release(2, "b1"))
    pages = render(read(store), SITE).pages
    overwrite(store, key, b"another publisher's")
    with pytest.raises(ConflictError):
        write_pages(store, before, pages)
    assert store.get(key).data == b"another publisher's"


def test_pages_are_written_before_the_pages_that_link_to_them(store):
    publish_by_hand(store, manifest())
    written = refresh(store).written
    places = [written.index(name) for name in (*pages_of("debian-12"), *UNSIGNED)]
    assert places == sorted(places)


def test_an_empty_repository_can_be_refreshed(store):
    refresh(store)
    assert index_of(store) == {}
    assert {stat.key for stat in store.list()} == {
        *UNSIGNED,
    }


def test_a_refresh_restores_what_was_damaged(store):
    publish_by_hand(store, manifest())
    refresh(store)
    kept = store.get("repo.metadata")
    store.put("repo.metadata", b"{}", expected=kept.etag)
    store.delete(["index"])
    assert refresh(store).written == ("index", "repo.metadata")
    assert store.get("repo.metadata").data == kept.data


def meanwhile(monkeypatch, wanted, act):
    """Run ``act`` once, just before the first write of ``wanted``."""
    real, done = DirectoryStore.put, []

    def put(self, key, data, **more):
        if key == wanted and not done:
            done.append(key)
            act()
        return real(self, key, data, **more)

    monkeypatch.setattr(DirectoryStore, "put", put)


@pytest.mark.parametrize("name", ["SHA256SUMS", "index", "repo.metadata", "index.html"])
def test_an_overtaken_publisher_starts_over(store, monkeypatch, name):
    publish_by_hand(store, manifest())

    def overtake():
        publish_by_hand(store, manifest("other"))
        refresh(store)

    meanwhile(monkeypatch, name, overtake)
    assert refresh(store).attempts == 2
    assert index_of(store) == {"debian-12": 1, "other": 1}
    assert refresh(store).written == ()


def test_a_withdrawal_is_not_undone_by_a_slower_publisher(store, monkeypatch):
    publish_by_hand(store, manifest(build_id="b1"))
    refresh(store)
    put_build(store, manifest(build_id="b2"))
    put_release(store, release(2, "b2"))

    def withdraw():
        put_release(store, release(3, None, withdraws=2))
        refresh(store)

    meanwhile(monkeypatch, "index", withdraw)
    refresh(store)
    assert index_of(store) == {"debian-12": 1}


def test_concurrent_publishers_lose_no_release(store):
    builds = [manifest(f"image{n}") for n in range(8)]
    for made in builds:
        put_build(store, made)

    def publish_one(made):
        public(store, made)
        publisher(store).refresh()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish_one, builds))
    assert set(index_of(store)) == {made.name for made in builds}
    assert refresh(store).written == ()


def test_a_refresh_that_always_conflicts_fails(store, monkeypatch):
    def conflict(*_args, **_more):
        raise ConflictError("always")

    monkeypatch.setattr(DirectoryStore, "put", conflict)
    with pytest.raises(RepositoryError, match="100 times"):
        refresh(store)
    with pytest.raises(RepositoryError, match="every time"):
        record_commit(store, "c1", is_ancestor=is_ancestor, wait=lambda _: None)


def test_publishing_unsigned_over_signed_files_is_refused(store):
    put(store, "index.asc", b"signed")
    with pytest.raises(SigningError, match="an unknown key") as caught:
        refresh(store)
    assert "--retire-key" in caught.value.hint
    assert {stat.key for stat in store.list()} == {"index.asc"}


def test_the_published_commit_only_moves_forward(store):
    def record(commit):
        return record_commit(store, commit, is_ancestor=is_ancestor)

    assert record("c2")
    assert not record("c1")
    assert not record("c2")
    assert record("c3")
    assert read(store).published.commit == "c3"


@pytest.mark.parametrize("before", ["gone", "d1"])
def test_a_published_commit_outside_the_branch_is_replaced(store, before):
    record_commit(store, before, is_ancestor=is_ancestor)
    assert record_commit(store, "c1", is_ancestor=is_ancestor)
    assert read(store).published.commit == "c1"


def test_a_newer_commit_recorded_concurrently_stays(store, monkeypatch):
    record_commit(store, "c1", is_ancestor=is_ancestor)
    meanwhile(monkeypatch, PUBLISHED, lambda: record_commit(store, "c3", is_ancestor=is_ancestor))
    assert not record_commit(store, "c2", is_ancestor=is_ancestor, wait=lambda _: None)
    assert read(store).published.commit == "c3"


def staged_with(store, build, packages):
    """A staged build of the next fingerprint with these packages."""
    made = manifest(build_id=build, fingerprint=f"sha256:{build}")
    staging = put_build(store, made)
    overwrite(store, staging.packages, "".join(f"{line}\n" for line in packages).encode())
    return made


def test_a_release_records_its_package_changes_for_clients(store):
    first = staged_with(store, "b1", ["bash 5.1 amd64", "jq 1.7 amd64"])
    second = staged_with(store, "b2", ["bash 5.2 amd64", "curl 8 amd64"])
    assert public(store, first).release.package_changes is None
    released = public(store, second, known=1).release
    assert released.package_changes == PackageDiff(
        since=1,
        added=("curl 8 amd64",),
        removed=("jq 1.7 amd64",),
        upgraded=("bash 5.1 5.2",),
    )
    assert read(store).current("debian-12", "x86_64") == released


def test_the_list_of_boot_files_becomes_public_and_is_bound(store):
    made = staged_with(store, "b1", ["bash 5.1 amd64"])
    text = f"{'a' * 64} 7 /boot/vmlinuz\n".encode()
    put(store, made.key.staging.boot_files, text)
    released = public(store, made).release
    assert store.get(released.public.boot_files).data == text
    bound = released.image.objects[layout.BOOT_FILES]
    assert (bound.sha256, bound.size) == (hashlib.sha256(text).hexdigest(), len(text))


def test_withdrawals_and_rollbacks_record_their_package_changes(store):
    for number, version in enumerate(("5.1", "5.2", "5.3"), 1):
        made = staged_with(store, f"b{number}", [f"bash {version} amd64"])
        public(store, made, known=number - 1)
    released = Released(commit="c1")
    gone = withdrawals.yank(publisher(store), "debian-12", reason="bad", released=released)
    assert gone.release.package_changes == PackageDiff(since=3, upgraded=("bash 5.3 5.2",))
    back = withdrawals.rollback(publisher(store), "debian-12", to=1, released=released)
    assert back.release.package_changes == PackageDiff(since=2, upgraded=("bash 5.2 5.1",))
    # A revision that nobody is offered changes nothing for anybody.
    old = withdrawals.yank(
        publisher(store), "debian-12", revision=2, reason="bad too", released=released
    )
    assert old.release.package_changes is None


@pytest.mark.parametrize("fault", ["missing", "others"])
def test_package_lists_that_were_not_released_are_not_compared(store, fault):
    first = public(store, staged_with(store, "b1", ["bash 5.1 amd64"])).release
    packages = first.public.packages
    if fault == "missing":
        store.delete([packages])
    else:
        overwrite(store, packages, b"bash 4.0 amd64\n")
    second = staged_with(store, "b2", ["bash 5.2 amd64"])
    assert public(store, second, known=1).release.package_changes is None


def test_a_release_records_a_limited_number_of_package_changes(store):
    public(store, staged_with(store, "b1", []))
    second = staged_with(store, "b2", [f"package-{n:04} 1 all" for n in range(1000)])
    changes = public(store, second, known=1).release.package_changes
    assert (len(changes.added), changes.omitted) == (250, 750)
    assert changes.added[0] == "package-0000 1 all"
