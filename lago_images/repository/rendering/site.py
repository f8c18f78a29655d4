"""Describe the repository itself, and the URL where its clients find it."""

from dataclasses import dataclass

from lago_images.addresses import is_plain_url
from lago_images.errors import Problem, SettingsError
from lago_images.repository.records.fields import is_line
from lago_images.settings import FILE, Settings

# The default of the older lago-images.
DEFAULT_NAME = "test"
DEFAULT_BASE_URL = "http://127.0.0.1:8181"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A repository's name, and its URL without a ``/`` at the end."""

    name: str
    base_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that signs the published files.

    Attributes:
        fingerprint: Of the primary key, 40 hexadecimal digits or more, in capitals.
        armour: The public key as gpg exports it, in ASCII.
    """

    fingerprint: str
    armour: bytes


def site_of(settings: Settings, store_url: str) -> Site:
    """Return where clients find the repository in ``store_url``.

    A directory without a ``base-url`` gets the older tool's, where ``lago-images serve`` listens.

    Raises:
        SettingsError: Name or URL cannot be published; or the repository is in a bucket and
            ``base-url`` is not set, so that lago could not find the images.
    """
    problems: list[Problem] = []
    refused: list[str] = []

    def complain(name: str, message: str) -> None:
        refused.append(name)
        problems.append(settings.problem(name, message))

    if "/" in settings.name or not is_line(settings.name):
        complain("name", "name must be one line without '/': lago makes file names of it")
    base_url = settings.base_url
    if not base_url and store_url.startswith("s3://"):
        message = (
            f"base-url is not set: lago needs to know where clients find {store_url} over HTTP"
        )
        complain("base_url", message)
    base_url = (base_url or DEFAULT_BASE_URL).rstrip("/")
    if not is_plain_url(base_url):
        complain("base_url", f"base-url must be an http, https or file URL, not {base_url!r}")
    if problems:
        raise SettingsError(problems, hint=f"set it in {FILE}, or as {_elsewhere(refused)}")
    return Site(name=settings.name.strip() or DEFAULT_NAME, base_url=base_url)


def _elsewhere(names: list[str]) -> str:
    """Name the option and the variable of each setting."""
    ways = {
        "name": "LAGO_IMAGES_NAME or lago-images build --repo-name",
        "base_url": "LAGO_IMAGES_BASE_URL or --base-url of lago-images ci rebuild or repo refresh",
    }
    return "; ".join(ways[name] for name in dict.fromkeys(names))
