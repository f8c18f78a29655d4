"""The catalogue in a browser: a large repository, served as any web server would, and from disk."""

import gzip
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.repository.records.release import Release
from lago_images.repository.rendering.catalogue import MOST_WHOLE
from lago_images.repository.rendering.commands import virt_builder_source
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import Offer, Shown
from lago_images.repository.serving.server import Server
from lago_images.storage.directory.store import DirectoryStore
from tests import npm
from tests.support.catalogue import large_state
from tests.support.server_threads import in_thread
from tests.tools import need

SCRIPT = Path(__file__).parents[1] / "browser/catalogue.mjs"
KEY = PublicKey(fingerprint="0123456789ABCDEF" * 2 + "01234567", armour=b"-----BEGIN PGP\n")
SITE = Site(name="example-images", base_url="https://images.example.org/repo")
IMAGE = "debian13-base"
PACKAGES = "bash 5.2.37-2 amd64\nlibssl3t64 3.5.2-1 amd64\nopenssl 3.5.2-1 amd64\n"
SPEC = "#name=<b>Debian</b>\ninstall nginx\n"
# Bytes, and what is published.
_FIRST_PAGE, _IMAGES = 200_000, 2000
SHOWN = 60
# Some days after the last release.
NOW = 1_791_000_000


def written(folder, keys, count, packages):
    """Write the rendered files of some images, with the packages of one of them."""
    state = large_state(count)
    rendered = render(state, SITE, keys)
    files = dict(rendered.files)
    files |= {key: page.render() for key, page in rendered.pages.items()}
    files |= {str(key): made.to_json() for key, made in state.outdated.values() if made}
    for name, arch in state.images:
        for release in state.history(name, arch):
            files[str(release.key)] = release.to_json()
            assert Release.parse(release.to_json(), release.key) == release
            if name == IMAGE and release.public:
                files[release.public.packages] = packages.encode()
                files[release.public.spec] = SPEC.encode()
    for key, data in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return written(tmp_path_factory.mktemp("catalogue"), [KEY], SHOWN, PACKAGES)


@contextmanager
def served(folder):
    store = DirectoryStore(path=folder)
    with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server, in_thread(server):
        yield server.url


@pytest.fixture(scope="module")
def seen(repository, tmp_path_factory):
    """What a browser showed of it."""
    need("chromium", "node", "npm")
    modules = npm.modules()
    unsigned = written(tmp_path_factory.mktemp("unsigned"), [], 1, PACKAGES.splitlines()[0])
    images = Shown.of(large_state(SHOWN)).images
    names = Counter(each.image.name for each in images)
    with served(repository) as url, served(unsigned) as unsigned_url:
        what = {
            "url": url,
            "plainUrl": url.replace("127.0.0.1", "images.example.org"),
            "fileUrl": repository.as_uri(),
            "unsignedUrl": unsigned_url,
            "image": IMAGE,
            "withdrawn": next(i.image.name for i in images if i.offer is Offer.WITHDRAWN),
            "twin": names.most_common(1)[0][0],
            "now": NOW,
        }
        done = subprocess.run(
            ["node", SCRIPT, modules, shutil.which("chromium"), json.dumps(what)],
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(repository.parent)},
            timeout=800,
            check=True,
        )
    found = json.loads(done.stdout)
    found["origins"] = [f"{what[each]}/" for each in ("url", "plainUrl", "unsignedUrl")]
    assert max(names.values()) == 2
    return found


@pytest.mark.parametrize("images", [MOST_WHOLE, _IMAGES])
def test_the_first_page_of_2000_images_is_small(images):
    """Also at the number up to which each has its whole checksums."""
    page = render(large_state(images, 5), SITE, [KEY]).files["index.html"]
    # As heavy as it gets: each disk is there as a qcow2, too, and was booted three times.
    assert page.count(b">qcow2, ") > 0.9 * images
    assert page.count(b"</span>: bios, uefi (kvm)<") > 0.8 * images
    whole = len(re.findall(rb'<code title="([0-9a-f]{64})">\1</code>', page))
    assert whole == (2 * page.count(b">qcow2, ") if images <= MOST_WHOLE else 0)
    is_short = b"the first 8 digits of each checksum" in page
    assert is_short is (images > MOST_WHOLE)
    assert len(gzip.compress(page, 6)) < _FIRST_PAGE


def test_no_page_is_wider_than_the_window(seen):
    assert seen["wide"] == []


def test_axe_finds_no_violation_at_either_width_in_either_colour_scheme(seen):
    assert seen["axe"] == []


def test_pages_log_nothing_and_request_no_other_origin(seen):
    assert seen["messages"] == []
    own = (*seen["origins"], "file://")
    assert [each for each in seen["requests"] if not each.startswith(own)] == []


def test_images_are_searched_filtered_and_sorted(seen):
    assert len(seen["all"]) == SHOWN
    searched = seen["searched"]
    assert searched["names"]
    assert all(name.startswith("debian13-postgres") for name in searched["names"])
    assert searched["count"] == f"{len(searched['names'])} of {SHOWN} images"
    assert 0 < len(seen["withdrawn"]["names"]) < SHOWN
    assert seen["withdrawn"]["reason"].startswith("does not boot with more than 64 CPUs <lost")
    assert seen["rolledBack"] == "openssl 3.5.2 breaks TLS to older peers"
    assert 0 < len(seen["filtered"]) < SHOWN
    assert all(name.startswith("debian12-") for name in seen["filtered"])
    assert 0 < len(seen["outdated"]) < SHOWN
    assert IMAGE in seen["outdated"]
    assert seen["nothing"] is True
    sizes = [float(text.split()[0]) for text in seen["sizes"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(seen["newest"]) == len(seen["oldest"]) == SHOWN
    assert seen["newest"] == sorted(seen["newest"], reverse=True) != sorted(seen["newest"])
    assert seen["oldest"] == sorted(seen["oldest"]) != sorted(seen["oldest"], reverse=True)


def test_aliases_and_notes_are_found_and_letters_outside_a_field_do_nothing(seen):
    assert seen["byAlias"] == [IMAGE]
    assert len(seen["byNotes"]) == SHOWN
    assert seen["focused"] == "BODY"


def test_an_image_is_a_card_on_a_phone_and_a_row_on_a_desk(seen):
    phone, desk = seen["phone"], seen["desk"]
    assert phone["get"]["top"] > phone["name"]["bottom"]
    assert (phone["head"]["height"], phone["label"]["height"] > 1) == (0, True)
    assert desk["get"]["top"] < desk["name"]["bottom"]
    assert desk["get"]["left"] > desk["name"]["right"]
    assert (desk["head"]["height"] > 0, desk["label"]["height"]) == (True, 1)
    assert desk["search"]["height"] == desk["select"]["height"]


def test_one_image_and_one_package_are_counted_as_one(seen):
    assert seen["single"] == ["1 image", "1 of 1 package"]


def test_the_list_says_how_long_ago_an_image_was_published(seen):
    published, built, text = seen["ago"]
    days = (datetime.fromtimestamp(NOW, UTC).date() - date.fromisoformat(published)).days
    assert 1 < days < 30
    assert text == f"{days} days ago; built {built}"


def test_everything_is_reached_by_keyboard_in_the_order_it_is_seen(seen):
    assert seen["walked"][:6] == ["To the images", "q", "d", "a", "s", "o"]
    image, *rest = seen["walked"][6:]
    assert image == seen["all"][0]
    assert all(f" download of {image}," in each for each in rest), rest
    assert re.fullmatch("[0-9a-f]{64}", seen["walkedChecksum"]["text"])


def test_a_filter_survives_a_reload(seen):
    assert seen["kept"] == seen["filtered"]


def test_commands_and_checksums_are_copied_verbatim(seen, repository):
    lines = seen["copied"]["text"].splitlines()
    assert lines[0] == f"curl -fsS {SITE.base_url}/key-{KEY.fingerprint}.asc | gpg --import &&"
    current = json.loads((repository / f"latest/{IMAGE}.x86_64.json").read_bytes())
    assert seen["checksum"]["text"] == current["revision"]["disk"]["sha256"]
    assert seen["copied"]["said"] == "Copied the commands for virt-builder"
    assert seen["checksum"]["said"] == "Copied the SHA-256 for x86_64"


def test_the_list_itself_has_the_whole_checksum_to_copy_to_select_and_to_find(seen):
    image = seen["all"][0]
    assert re.fullmatch("[0-9a-f]{64}", seen["listed"]["text"])
    assert seen["listed"]["said"].startswith(f"Copied the SHA-256 of {image}, ")
    # By its beginning: a word that is in some checksum by chance finds none.
    assert seen["byDigest"] == [[image], []]
    plain = seen["unscripted"]
    # A triple click may take the line's end, too.
    assert seen["listed"]["text"] in plain["selected"]
    assert plain["title"] == seen["listed"]["text"]
    assert plain["lines"] < 1.5


def test_what_the_clipboard_refuses_is_copied_by_a_selection_or_stays_selected(seen):
    assert seen["isSecure"] is False
    assert seen["copiedPlainly"] == seen["copiedRefused"] == seen["copied"]
    assert seen["notCopied"] == {
        "said": "Selected the commands for virt-builder, for good",
        "text": "nothing",
    }
    assert seen["selected"].splitlines() == virt_builder_source(SITE, KEY).text.splitlines()


def test_an_image_page_is_linked_and_filters_its_packages(seen):
    assert seen["followed"] == IMAGE
    assert seen["packages"] == ["openssl 3.5.2-1 amd64"]


def test_pages_are_complete_without_javascript_and_from_a_folder(seen):
    assert seen["plain"] == {"items": SHOWN, "tools": False, "packages": PACKAGES, "spec": SPEC}
    names = seen["searched"]["names"]
    assert seen["disk"] == {"names": names, "packages": PACKAGES, "note": True}
    # Where the page's own filter works, that is not said.
    assert seen["note"] == 0


def test_printed_pages_have_no_controls(seen):
    assert seen["print"] == {"tools": False, "items": SHOWN}
