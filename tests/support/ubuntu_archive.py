"""An Ubuntu archive of the tests' own: its pockets and components on one mirror, signed."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from tests.support.debian_archive import Stanza
from tests.support.files import Files
from tests.support.keys import TestKey, home

POCKETS = ("", "-updates", "-security")


def publish(server: Files, key: TestKey, codename: str, has: Mapping[str, Iterable[Stanza]]) -> str:
    """Publish a release whose first pocket has these packages, by component; returns its URL."""
    for pocket in POCKETS:
        place = f"/ubuntu/dists/{codename}{pocket}"
        lists = {
            f"{component}/binary-amd64/Packages": "".join(map(str, () if pocket else its)).encode()
            for component, its in has.items()
        }
        server.content |= {f"{place}/{name}": content for name, content in lists.items()}
        server.content[f"{place}/InRelease"] = _signed(
            key, _release(codename + pocket, codename, lists)
        )
    return f"{server.url}/ubuntu"


def _release(suite: str, codename: str, lists: Mapping[str, bytes]) -> str:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    components = " ".join(name.partition("/")[0] for name in lists)
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        for name, content in lists.items()
    )
    return (
        f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nCodename: {codename}\nDate: {now}\n"
        f"Architectures: amd64\nComponents: {components}\nSHA256:\n{sums}"
    )


def _signed(key: TestKey, release: str) -> bytes:
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        return gpg.call("--clearsign", "--local-user", key.fingerprint, stdin=release.encode())
