"""Tell the forms of a repository's address, and of the URL that is published for its clients."""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

FORMS = "s3://bucket/prefix, file:///dir or a path"
# One slash is a slip of the same, not the folder ``s3:``; a path may say ``./s3:/``.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# Wider than S3's own rule: Ceph with rgw_relaxed_s3_bucket_names and old buckets of AWS may have
# capitals and underscores, and 255 characters. The SDK takes no ``tenant:bucket``.
_BUCKET = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{2,254}")
# What every store takes:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_USUAL = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
# XML, and so a store's listing, has no form for these.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SPELLING = (
    "most stores take 3 to 63 lower case letters, digits, dots and hyphens, with a letter or digit "
    "first and last"
)
_SCHEMES = ("http", "https", "file")


class Refusal(NamedTuple):
    """Why an address names no repository, and what to do."""

    what: str
    hint: str


def is_bucket(address: str) -> bool:
    """Return whether an address is of S3, also with the slip of one slash."""
    return address.lower().startswith("s3:/")


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the two parts of an ``s3:`` address."""
    bucket, _, prefix = url.partition("://")[2].partition("/")
    return bucket, prefix.strip("/")


def unusual_bucket(name: str) -> str:
    """Return what to check in a bucket's name that most stores do not take; empty for others."""
    if _USUAL.fullmatch(name):
        return ""
    return f"check the bucket's name, {name}: {_SPELLING}"


def file_path(url: str) -> str:
    """Return the path of a ``file:`` address; empty where it has none of this machine."""
    # RFC 8089: the host may be empty or localhost; file://srv/images has a host named "srv".
    parts = urlsplit(url)
    is_local = parts.netloc in {"", "localhost"} and parts.path.startswith("/")
    return unquote(parts.path) if is_local else ""


def refusal(url: str) -> Refusal | None:
    """Return why a text is no address of a repository; None if it is one."""
    scheme = SCHEME.match(url)
    match scheme and scheme[1].lower():
        case None if url.lower().startswith("s3:"):
            return Refusal(f"{url}: an address of S3 has two slashes", f"use {FORMS}")
        case None:
            # An empty setting would be the folder itself, and no path has a null character.
            is_path = url.strip() and "\0" not in url
            return None if is_path else Refusal("the repository's URL is empty", f"use {FORMS}")
        case "file":
            what = f"{url}: a file URL has three slashes and a path of this machine"
            return None if file_path(url) else Refusal(what, "file:///srv/images")
        case "s3":
            return _no_bucket(url)
        case "http" | "https":
            # A web server lists nothing, and what is withdrawn or gone is in no rendered file.
            return Refusal(
                f"{url}: a repository can neither be read whole nor written over HTTP",
                f"name the store itself: {FORMS}; a public bucket is read without "
                "credentials, and an S3 endpoint goes into AWS_ENDPOINT_URL_S3. What clients get "
                f"of it is in {url.rstrip('/')}/images.json, for people in index.html beside that",
            )
        case _:
            return Refusal(f"{url}: not a place for a repository", f"use {FORMS}")


def _no_bucket(url: str) -> Refusal | None:
    bucket, prefix = bucket_and_prefix(url)
    if not _BUCKET.fullmatch(bucket):
        hint = f"use {FORMS}; {_SPELLING}"
        return Refusal(f"{url}: {bucket!r} is not a bucket's name", hint)
    if _CONTROL.search(prefix):
        return Refusal(f"{url!r}: the prefix has a control character", f"use {FORMS}")
    # S3 takes these as they are; proxies and clients make other paths of them.
    if prefix and not {"", ".", ".."}.isdisjoint(prefix.split("/")):
        return Refusal(f"{url}: the prefix has an empty, . or .. part", f"use {FORMS}")
    return None


def is_plain_url(text: str) -> bool:
    """Return whether a URL can be published: people paste it into a shell, in commands of ours."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    plain = not re.search(r"[\s\x00-\x20\x7f'\"<>\\`$;|&]", text) and text == quote(text, "/:%@[]~")
    host = parts.hostname if parts.scheme != "file" else parts.path
    return plain and parts.scheme in _SCHEMES and bool(host) and not parts.query
