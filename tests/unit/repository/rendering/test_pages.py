import gzip
import hashlib
import html
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings

from lago_images.console import human_size
from lago_images.repository.records.access import Access, Login
from lago_images.repository.records.guest_tests import GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.layout import ImageId, ReleaseKey, is_rendered
from lago_images.repository.records.manifest import BootTest
from lago_images.repository.records.release import ObjectDigest, PackageDiff, Released
from lago_images.repository.records.state import State, histories, read
from lago_images.repository.rendering import commands, documents
from lago_images.repository.rendering.index import listing_mark
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import Offer, Shown, Status
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    PROPERTIES,
    SITE,
    bound,
    copy_of,
    layer_on,
    manifest,
    outdated,
    publish_by_hand,
    put,
    put_outdated,
    put_release,
    release,
    released_image,
)
from tests.support.strategies import states

ATOM = "{http://www.w3.org/2005/Atom}"
XHTML = "{http://www.w3.org/1999/xhtml}"
KEY = PublicKey(fingerprint="AB" * 20, armour=b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(path=tmp_path)


def pages_of(state, key=KEY):
    return {name: page.render() for name, page in render(state, SITE, [key]).pages.items()}


def page_of(state, name="debian-12"):
    return pages_of(state)[f"catalogue/{name}.html"].decode()


def shown_of(store, image=("debian-12", "x86_64")):
    return next(each for each in Shown.of(read(store)).images if each.image == image)


class Elements(HTMLParser):
    """The elements and attributes of a page, as a browser's parser has them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.ids, self.links = [], set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]


@given(states())
@settings(max_examples=40)
def test_any_state_renders_complete_pages(state):
    for name, data in pages_of(state).items():
        assert is_rendered(name)
        text = data.decode()
        if name.endswith(".html"):
            elements = Elements(text)
            assert elements.tags.count("script") == elements.tags.count("style") == 1
            assert "img" not in elements.tags
            assert not [each for each in elements.attributes if each.startswith("on")]
            assert len(elements.ids) == len(set(elements.ids))
        elif name.endswith(".xml"):
            assert ET.fromstring(data).tag == f"{ATOM}feed"
        else:
            msgspec.json.decode(data, type=documents.Latest)
    files = render(state, SITE, [KEY]).files
    assert ET.fromstring(files["feed.xml"]).tag == f"{ATOM}feed"
    msgspec.json.decode(files["images.json"], type=documents.Images)


@given(states())
@settings(max_examples=25)
def test_every_link_of_a_page_leads_to_a_released_object(state):
    rendered = render(state, SITE, [KEY])
    offered = {
        release.public.folder + name
        for image in state.images
        for release in state.live(*image)
        for name in (*release.image.objects, f"{release.name}.qcow2.xz")
    }
    known = {*offered, *rendered.pages, *rendered.files, "index.asc", "SHA256SUMS.asc"}
    pages = {name: page.render().decode() for name, page in rendered.pages.items()}
    pages["index.html"] = rendered.files["index.html"].decode()
    for name, text in pages.items():
        if not name.endswith(".html"):
            continue
        folder = "catalogue/" if name.startswith("catalogue/") else ""
        for link in Elements(text).links:
            path = link.partition("#")[0]
            target = path.removeprefix("../") if path.startswith("../") else folder + path
            assert not path or target in known, (name, link)


def test_the_catalogue_counts_what_is_offered_and_what_is_not(store):
    publish_by_hand(store, manifest(), manifest("gone", "g1"))
    assert "2 VM images for virt-builder, lago and libvirt, ready to download;" in catalogue(store)
    put_release(store, release(2, None, "gone", withdraws=1))
    lead = "1 VM image for virt-builder, lago and libvirt, ready to download, and 1 with nothing"
    assert lead in catalogue(store)


def catalogue(store):
    return render(read(store), SITE, [KEY]).files["index.html"].decode()


def test_a_page_says_how_to_log_in(store):
    made = manifest()
    assert "Log in" not in page_of(store_with(store, made, None))
    access = Access(logins=(Login(user="root", password="<b> &", has_password=True),))
    assert "<dd>root: password &lt;b&gt; &amp;</dd>" in page_of(store_with(store, made, access, 2))
    nothing = page_of(store_with(store, made, Access(), 3))
    assert "<dd>the spec sets no password and no key</dd>" in nothing


def store_with(store, made, access, revision=1):
    """The state of a repository with one more revision, that says how to log in."""
    released = release(revision, made)
    put_release(store, replace(released, image=replace(released.image, access=access)))
    return read(store)


def test_the_fate_of_each_revision_is_shown(store):
    publish_by_hand(store, *(manifest(build_id=f"b{n}") for n in (1, 2, 3)))
    put(store, copy_of(manifest(build_id="b1")).retirement, b"{}")
    put_release(store, release(4, None, withdraws=3, reason="no network"))
    shown = shown_of(store)
    assert (shown.offer, shown.reason) == (Offer.FORMER, "revision 3: no network")
    assert {record.release.revision: record.status for record in shown.records} == {
        4: None,
        3: Status.WITHDRAWN,
        2: Status.CURRENT,
        1: Status.RETIRED,
    }
    page = page_of(read(store))
    assert "Revision 3 withdrawn" in page
    assert page.count("no network") == 3
    links = Elements(page).links
    assert "../images/debian-12/x86_64/b2.0123abcd/debian-12.qcow2.xz" in links
    assert not [link for link in links if "b1." in link or "b3." in link]


def test_reasons_of_rollbacks_and_withdrawn_images_are_shown(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"), manifest("other"))
    put_release(store, release(3, "b1", reason="openssl"))
    assert (shown_of(store).offer, shown_of(store).reason) == (Offer.ROLLED_BACK, "openssl")
    put_release(store, release(2, None, "other", withdraws=1, reason="a secret in it"))
    gone = shown_of(store, ("other", "x86_64"))
    assert (gone.offer, gone.reason, gone.is_offered) == (Offer.WITHDRAWN, "a secret in it", False)
    files, pages = render(read(store), SITE).files, pages_of(read(store))
    assert b"a secret in it" in files["index.html"]
    assert json.loads(pages["latest/other.x86_64.json"]) == {
        "schema": 1,
        "name": "other",
        "arch": "x86_64",
        "offer": "withdrawn",
        "reason": "a secret in it",
        "page": f"{SITE.base_url}/catalogue/other.html",
        "releases": listing_mark(read(store), ImageId("other", "x86_64")),
        "revision": None,
    }


def test_nothing_older_than_a_damaged_release_is_offered_on_its_page(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put(store, "releases/debian-12/x86_64/3.json", b"no")
    assert shown_of(store).newest.status is Status.BLOCKED
    assert "not offered" in page_of(read(store))


def test_the_list_names_what_an_image_booted_with_and_its_page_the_seconds(store):
    boot = BootTest(seconds=9.0, accel="kvm", firmware={"uefi": 9.0, "bios": 8.0}, again=8.0)
    publish_by_hand(store, manifest(boot=boot), manifest("old", boot=replace(boot, firmware={})))
    page = catalogue(store)
    assert "booted</span>: bios, uefi (kvm)<" in page
    assert "booted</span>: kvm<" in page
    assert "bios 8 s, uefi 9 s, second boot 8 s (kvm)" in page_of(read(store))


def test_the_list_has_aliases_and_notes_and_says_what_to_check_with(store):
    properties = {**PROPERTIES, "aliases": "bookworm,deb12", "notes": "root has <no> password"}
    made = manifest(properties=properties)
    publish_by_hand(store, made)
    page = catalogue(store)
    assert "also bookworm, deb12<" in page
    assert "bootstrap:<wbr>bookworm<" in page
    assert "root has &lt;no&gt; password<" in page
    assert f'sha256 <code title="{made.disk.sha256}">{made.disk.sha256}</code>' in page
    assert "the SHA-256 of debian-12, x86_64</span></button>" in page
    assert 'The checksums of all images are in <a href="SHA256SUMS.asc">' in page
    unsigned = render(read(store), SITE, []).files["index.html"].decode()
    assert 'The checksums of all images are in <a href="SHA256SUMS">' in unsigned


def test_one_thing_is_told_as_one(store):
    publish_by_hand(store, manifest(build_id="b1"))
    diff = PackageDiff(since=1, upgraded=("bash 5.1 5.2",))
    put_release(store, release(2, "b2", package_changes=diff))
    page, feed = page_of(read(store)), render(read(store), SITE).files["feed.xml"].decode()
    assert "<summary>1 package change since revision 1</summary>" in page
    assert "<summary>Show the 1 package for x86_64</summary>" in page
    for text in (catalogue(store), page, feed):
        assert not re.search(r"\b1 [a-z ]*(packages|changes|records|images)\b", text)


def test_a_page_lists_what_the_boot_test_judged(store):
    checks = ("network", "second <boot>")
    boot = BootTest(seconds=9.0, accel="kvm", firmware={"bios": 9.0}, again=8.0, checks=checks)
    publish_by_hand(store, replace(manifest(build_id="b1"), boot=boot))
    page = page_of(read(store))
    assert "bios 9 s, second boot 8 s (kvm)<small>network, second &lt;boot&gt;</small>" in page


def test_bases_and_layers_are_linked_both_ways(store):
    base = manifest(build_id="b1")
    middle = manifest("middle", base=layer_on(base, 1))
    top = manifest("top", base=layer_on(middle, 1))
    publish_by_hand(store, base, middle, top, manifest(build_id="b9"))
    page = page_of(read(store), "middle")
    assert '<a href="debian-12.html">debian-12</a> <span class="soft">revision 1' in page
    assert '<a href="top.html">top</a> <span class="soft">revision 1</span>' in page
    assert "bootstrap:bookworm" in page


TEST = GuestTestRecord(name="debian-12.test", exit_code=1, output="a secret of the test")
BOOTED = BootTest(seconds=31.0, accel="kvm", firmware={"bios": 31.0})


@pytest.mark.parametrize(
    ("boot", "in_catalogue", "on_page"),
    [
        (None, "no boot test</span><small>no agent &amp; no</small>", "none: no agent &amp; no"),
        (BOOTED, "booted</span>: bios (kvm)<", "bios 31 s (kvm)"),
        (
            replace(BOOTED, tests=(TEST,)),
            "booted</span>: bios (kvm), 1 of 1 test failed, quarantined until 2026-12-31<",
            "bios 31 s (kvm), 1 of 1 test failed, quarantined until 2026-12-31",
        ),
        (
            BootTest(seconds=0.0, accel="tcg"),
            "failed (TCG: emulation without KVM), quarantined until 2026-12-31",
            "<small>boot test: it &lt;hangs&gt; (quarantined until 2026-12-31: https://x/1)</small>",
        ),
    ],
)
def test_how_an_image_was_tried_is_shown_where_it_is_offered(store, boot, in_catalogue, on_page):
    what = "debian-12.test" if boot and boot.tests else "boot test"
    held = QuarantinedFailure(
        what=what, problem="it <hangs>", issue="https://x/1", until="2026-12-31"
    )
    if boot is not None and boot != BOOTED:
        boot = replace(boot, quarantined=(held,))
    properties = {**PROPERTIES, "boot-test": "no: no agent & no"}
    publish_by_hand(store, manifest(boot=boot, properties=properties))
    rendered = render(read(store), SITE, [KEY])
    catalogue = rendered.files["index.html"].decode()
    page = page_of(read(store))
    assert in_catalogue in catalogue
    assert on_page in page
    assert "a secret of the test" not in catalogue + page + rendered.files["images.json"].decode()


def test_images_that_exchanged_base_and_layer_end_the_tree():
    one, other = manifest("one"), manifest("other", base=layer_on(manifest("one"), 1))
    again = manifest("one", "b2", base=layer_on(other, 1))
    state = State(
        releases={
            ReleaseKey(name="one", arch="x86_64", revision=1).image: (
                release(1, one),
                release(2, again, base=bound(other, 1)),
            ),
            ReleaseKey(name="other", arch="x86_64", revision=1).image: (
                release(1, other, base=bound(one, 1)),
            ),
        },
        objects={},
        published=None,
    )
    assert "other.html" in page_of(state, "one")


def test_package_changes_are_in_page_and_feed(store):
    publish_by_hand(store, manifest(build_id="b1"))
    diff = PackageDiff(since=1, upgraded=("bash 5.1 5.2",), added=("jq 1.7 amd64",), omitted=3)
    put_release(store, release(2, "b2", package_changes=diff))
    pages = pages_of(read(store))
    for name in ("catalogue/debian-12.html", "catalogue/debian-12.xml"):
        assert "<b>bash</b> 5.1 → 5.2" in pages[name].decode()
        assert "<b>jq</b> 1.7 amd64" in pages[name].decode()
    feed = ET.fromstring(pages["catalogue/debian-12.xml"])
    titles = [each.text for each in feed.iter(f"{ATOM}title")]
    assert titles[1:] == [
        "debian-12 (x86_64): revision 2 released",
        "debian-12 (x86_64): revision 1 released",
    ]
    ids = [each.text for each in feed.iter(f"{ATOM}id")]
    assert ids[1] == f"{SITE.base_url}/releases/debian-12/x86_64/2.json"


RUN = "https://github.com/example/vm-specs/actions/runs/12345678"


@pytest.mark.parametrize(
    ("run", "commit", "commit_url", "run_url"),
    [
        (RUN, "a" * 40, f"https://github.com/example/vm-specs/commit/{'a' * 40}", RUN),
        (
            "https://git.example.org/o/r/actions/runs/1/attempts/2",
            "b" * 64,
            f"https://git.example.org/o/r/commit/{'b' * 64}",
            "https://git.example.org/o/r/actions/runs/1/attempts/2",
        ),
        (RUN, "unknown", "", RUN),
        (RUN, f"{'a' * 37}/..", "", RUN),
        (RUN, f"{'a' * 40}\n", "", RUN),
        ("http://ci.example.org/job/images/7/", "a" * 40, "", "http://ci.example.org/job/images/7/"),
        ("", "a" * 40, "", ""),
        ("javascript:alert(1)", "a" * 40, "", ""),
        (f"javascript:alert(1)//{RUN}", "a" * 40, "", ""),
        (f"javascript:alert(1)\n{RUN}", "a" * 40, "", ""),
        (f" {RUN}", "a" * 40, "", ""),
        ("https://github.com/o/r/x/actions/runs/1", "a" * 40, "", "https://github.com/o/r/x/actions/runs/1"),
    ],
)  # fmt: skip
def test_a_record_links_its_commit_and_run_where_these_are_web_pages(
    store, run, commit, commit_url, run_url
):
    put_release(store, release(1, manifest(commit=commit), released=Released(commit="c1", run=run)))
    links = Elements(page_of(read(store))).links
    assert [each for each in links if "/commit/" in each] == [commit_url] * bool(commit_url)
    assert [each for each in links if each == run] == [run_url] * bool(run_url)
    assert not [each for each in links if "script:" in each]


@pytest.mark.parametrize(
    ("clone", "page"),
    [
        ("https://github.com/o/r.git", "https://github.com/o/r/commit/"),
        ("ssh://github.com/o/r.git", "https://github.com/o/r/commit/"),
        ("ssh://gitlab.example.org:22/a/b/r", "https://gitlab.example.org/a/b/r/-/commit/"),
        ("https://codeberg.org/o/r/", "https://codeberg.org/o/r/commit/"),
        ("https://bitbucket.org/o/r", "https://bitbucket.org/o/r/commits/"),
        # A server of git alone, or one whose pages have a name of their own.
        ("https://git.example.org/o/r", ""),
        ("git://github.com/o/r", ""),
        ("https://github.com/", ""),
        ("https://github.com/o", ""),
        ("https://github.com/o/../r", ""),
        ("https://github.com/o/r?x", ""),
        ('https://github.com/o/"onclick="', ""),
        ("https://github.com/o/r\n", ""),
        ("javascript://github.com/o/r", ""),
        ("", ""),
    ],
)
def test_a_record_outside_github_links_its_commit_where_the_clones_host_has_pages(
    store, clone, page
):
    released = Released(commit="c1", repository=clone)
    put_release(store, release(1, manifest(commit="a" * 40), released=released))
    links = Elements(page_of(read(store))).links
    found = [each for each in links if "/commit" in each]
    assert found == [f"{page}{'a' * 40}"] * bool(page)


def test_feeds_tell_withdrawals_and_rollbacks_and_why(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put_release(
        store, release(3, None, withdraws=2, reason="no <network>", published=1_700_000_300)
    )
    put_release(store, release(4, "b1", reason="openssl & more", published=1_700_000_400))
    for data in (pages_of(read(store))["catalogue/debian-12.xml"],
                 render(read(store), SITE).files["feed.xml"]):  # fmt: skip
        entries = list(ET.fromstring(data).iter(f"{ATOM}entry"))
        titles = [
            entry.findtext(f"{ATOM}title").removeprefix("debian-12 (x86_64): ") for entry in entries
        ]
        assert titles == [
            "rolled back to revision 1",
            "revision 2 withdrawn",
            "revision 2 released",
            "revision 1 released",
        ]
        reasons = [
            ["".join(p.itertext()) for p in entry.iter(f"{XHTML}p")][:1] for entry in entries
        ]
        assert reasons[:2] == [["Reason: openssl & more"], ["Reason: no <network>"]]
        assert not [each for each in reasons[2:] if each[0].startswith("Reason")]
        links = [entry.find(f"{ATOM}link").get("href") for entry in entries]
        assert links[1] == f"{SITE.base_url}/catalogue/debian-12.html#x86_64-3"


@pytest.mark.parametrize(
    ("line", "upgraded"),
    [("", ""), ("bash", "bash"), ("a b c d", "a b → c → d"), ("<b> & 1", "<b> & → 1")],
)
def test_package_changes_of_any_form_are_rendered(store, line, upgraded):
    diff = PackageDiff(since=1, upgraded=(line,), added=(line,), removed=(line,))
    put_release(store, release(1, "b1", package_changes=diff))
    pages = pages_of(read(store))
    feed = ET.fromstring(pages["catalogue/debian-12.xml"])
    items = ["".join(each.itertext()).strip() for each in feed.iter(f"{XHTML}li")]
    assert items == [upgraded, line, line]
    page = pages["catalogue/debian-12.html"].decode()
    lists = re.findall(r'<ul class="packages"><li>(.*?)</li></ul>', page)
    texts = [html.unescape(re.sub(r"</?b>", "", each)).strip() for each in lists]
    assert texts == [upgraded, line, line]


def test_a_release_changes_the_inputs_of_its_family_only(store):
    base, layer = manifest(), manifest("layer", base=layer_on(manifest(), 1))
    publish_by_hand(store, base, layer, manifest("other"))
    before = render(read(store), SITE).pages
    put_release(store, release(2, layer, base=bound(base, 1)))
    after = render(read(store), SITE).pages
    changed = {name for name in after if before[name].inputs != after[name].inputs}
    assert changed == {
        "catalogue/debian-12.html",
        "catalogue/layer.html",
        "catalogue/layer.xml",
        "latest/layer.x86_64.json",
    }


def test_another_key_or_base_url_changes_every_page(store):
    publish_by_hand(store, manifest())
    state, name = read(store), "catalogue/debian-12.html"
    other = replace(KEY, fingerprint="CD" * 20)
    elsewhere = Site(name="test-repo", base_url="https://elsewhere.example.org")
    inputs = {
        render(state, site, keys).pages[name].inputs
        for site, keys in [(SITE, []), (SITE, [KEY]), (SITE, [other]), (elsewhere, [KEY])]
    }
    assert len(inputs) == 4


def test_commands_quote_values_of_the_spec():
    made = manifest(properties={"osinfo": "debian12; rm -rf ~"})
    for each in commands.of_image(release(1, made), released_image(made), SITE, KEY):
        assert "; rm -rf ~" not in each.text.replace("'debian12; rm -rf ~'", "")
    [libvirt] = [
        each for each in commands.of_image(release(1, made), released_image(made), SITE, None)
        if each.title == "libvirt"
    ]  # fmt: skip
    assert "debian12; rm -rf ~" in shlex.split(libvirt.text)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_architecture_is_in_the_client_commands(arch):
    """A client may be a machine of another one, which is the tools' default there."""
    made = manifest(arch=arch)
    texts = {
        each.title: each.text
        for each in commands.of_image(release(3, made), released_image(made), SITE, KEY)
    }
    assert f"debian-12 --arch {arch} " in texts["virt-builder"]
    assert ("template_version: 1-3-aarch64" in texts["lago"]) == (arch == "aarch64")
    assert f"--arch {arch}" in texts["libvirt"]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("booted", "named", "is_uefi_only"),
    [
        ({"bios": 9.0, "uefi": 9.0}, "", False),
        ({"bios": 9.0}, "", False),
        ({"uefi": 9.0}, "", True),
        ({}, "uefi", True),
        ({}, "bios uefi", False),
        ({}, "", False),
        (None, "uefi", True),
        (None, "", False),
    ],
)
def test_a_machine_of_what_boots_by_uefi_alone_gets_that(arch, booted, named, is_uefi_only):
    boot = None if booted is None else BootTest(seconds=9.0, accel="kvm", firmware=booted)
    properties = {"firmware": named} if named else {}
    made = manifest(arch=arch, boot=boot, properties=properties)
    [text] = [
        each.text for each in commands.of_image(release(1, made), released_image(made), SITE, KEY)
        if each.title == "libvirt"
    ]  # fmt: skip
    assert text.endswith(" --boot uefi") == is_uefi_only


def test_the_list_of_boot_files_is_linked_where_there_is_one(store):
    old, new = release(1), release(2, "b2")
    key = new.image.public.boot_files
    objects = {**new.image.objects, "boot-files.txt": ObjectDigest(sha256="a" * 64, size=1)}
    for record in (old, replace(new, image=replace(new.image, objects=objects))):
        put_release(store, record)
    links = [link for link in Elements(page_of(read(store))).links if "boot-files" in link]
    # Beside the newest revision's facts, and in its record of the history.
    assert links == [f"../{key}"] * 2
    rendered = json.loads(render(read(store), SITE).files["images.json"])
    files = [each["files"].get("boot") for each in rendered["images"][0]["revisions"]]
    assert files == [f"{SITE.base_url}/{key}", None]


def test_a_long_history_shows_old_revisions_as_lines_and_offered_ones_whole(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put(store, copy_of(manifest(build_id="b2")).retirement, b"{}")
    for revision in range(3, 70):
        put_release(store, release(revision, "b3"))
    page = page_of(read(store))
    # Revisions 1 and 3 to 19 are offered, too: clients of lago can ask for them.
    assert "1 earlier record for x86_64" in page
    elements = Elements(page)
    assert {f"x86_64-{revision}" for revision in range(1, 70)} <= set(elements.ids)
    assert "../images/debian-12/x86_64/b1.0123abcd/debian-12.qcow2.xz" in elements.links


def withdrawn_history(pairs):
    """Releases of commits that are at GitHub, each with its withdrawal; and one that is offered."""
    history = []
    for number in range(1, 2 * pairs, 2):
        commit = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
        run = f"https://github.com/lago-project/images/actions/runs/{number}"
        released = Released(commit=commit, actor=f"somebody-{number}", run=run)
        history.append(
            release(number, manifest(build_id=f"b{number}", commit=commit), released=released)
        )
        history.append(release(number + 1, None, withdraws=number, reason="bad", released=released))
    history.append(release(2 * pairs + 1, "last"))
    return State(releases=histories(history), objects={}, published=None)


def test_an_old_record_says_who_made_it_and_its_size_and_links_its_commit():
    state = withdrawn_history(60)
    page = page_of(state)
    first, second = state.history("debian-12", "x86_64")[:2]
    size = human_size(first.manifest.disk.compressed_size)
    text = " ".join(re.sub("<[^>]*>", " ", page.partition("earlier records")[2]).split())
    told = f"by somebody-1, withdrawn, {size}, commit {first.commit[:12]} "
    assert f"Revision 1, 2023-11-14 {told}" in text
    assert f"Revision 1 withdrawn, 2023-11-14 by somebody-1, commit {second.commit[:12]}" in text
    link = f"https://github.com/lago-project/images/commit/{first.commit}"
    # Of the release and of the withdrawal, both of which are old.
    assert Elements(page).links.count(link) == 2


def test_a_history_of_2000_records_is_a_small_page():
    page = page_of(withdrawn_history(1000))
    assert "1951 earlier records" in page
    assert len(gzip.compress(page.encode(), 6)) < 200_000


def test_what_a_build_would_get_today_is_on_the_page_and_marks_the_list(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"), manifest("other"))
    changes = [f"lib{number:02} 1 2" for number in range(30)]
    made = outdated(release(2, "b2"), *changes, base="<b>revision 2</b> of tiny")
    put_outdated(store, made)
    state = read(store)
    page = page_of(state)
    assert "&lt;b&gt;revision 2&lt;/b&gt; of tiny</li><li>lib00 1 → 2</li>" in page
    assert "and 11 more, since" in page
    assert "lib19" not in page
    assert f"../{made.key}" in Elements(page).links
    assert "A build today" not in page_of(state, "other")
    listed = render(state, SITE, [KEY]).files["index.html"].decode()
    assert listed.count('<span class="badge outdated">outdated</span>') == 1
    assert "<option>outdated</option>" in listed
    images = {
        each["name"]: each
        for each in json.loads(render(state, SITE).files["images.json"])["images"]
    }
    current, before = images["debian-12"]["revisions"]
    assert current["upstream"]["packages"]["upgraded"] == changes
    assert current["upstream"]["record"] == f"{SITE.base_url}/{made.key}"
    assert (current["upstream"]["since"], before["upstream"]) == ("2023-11-14T22:16:40Z", None)


def test_pages_of_other_images_do_not_depend_on_what_is_outdated(store):
    base = manifest("base")
    publish_by_hand(store, base, manifest("on-base", base=layer_on(base)))
    before = render(read(store), SITE).pages
    put_outdated(store, outdated(release(1, base), "openssl 1 2"))
    after = render(read(store), SITE).pages
    changed = {key for key in after if after[key].inputs != before[key].inputs}
    assert changed == {"catalogue/base.html", "latest/base.x86_64.json"}
