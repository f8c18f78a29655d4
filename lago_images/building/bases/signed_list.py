"""Fetch the newest file that an image maker's signed list of checksums names, from any mirror.

The list, its signature and the file are replaced one after the other, on each mirror at another
time. So a mirror counts only where the three agree, and when none does, all are asked again.
"""

from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

from lago_images.building.bases.checksum_list import Listed, NoMatchError, choose, parse
from lago_images.building.bases.prepared import Prepared
from lago_images.building.bases.simple import fetch, finished, largest
from lago_images.building.downloads import LARGEST
from lago_images.building.model import Context
from lago_images.disks.ending import Ending
from lago_images.disks.unpack import ChecksumError
from lago_images.errors import BuildError, Error, Problem, SigningError, SpecError
from lago_images.host.gpgv import CLEAR_SIGNED, verified
from lago_images.host.http import Client, CutOffError, HttpError, Limits
from lago_images.host.process import Runner
from lago_images.host.retry import RetryPolicy
from lago_images.host.signature_status import OtherTextError
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import Spec

RETRY = RetryPolicy(attempts=3, delay=5.0, factor=4.0, longest=60.0)
# As Ubuntu names them; AlmaLinux, Rocky and openSUSE; Debian; and Arch Linux.
SIGNATURES = (".gpg", ".asc", ".sign", ".sig")
_OTHER = "name another mirror with #base-mirror=URL"
_LATER = f"try again later, or {_OTHER}"
_LARGEST_KEY = 2**20
# Bytes; and a list lies where the spec says: what another host answers, the one who named this URL
# may not be meant to see.
_LIST = Limits(size=16 * 2**20, same_host_only=True)
_SIGNATURE = Limits(size=2**20, same_host_only=True)
# Of a file whose headers alone are read.
_ANY = Limits(size=LARGEST)
# What servers answer where they have no such file; those of object stores say that it is forbidden.
_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.GONE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """The folder that a mirror has the files in, with a slash at its end, and its list's URL."""

    folder: str
    checksums: str


class _MirrorError(BuildError):
    """A mirror does not have what is meant; ``again`` is true where it may have it soon."""

    def __init__(self, message: str, *, again: bool, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.again = again


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """The file, list and key that are looked for on each mirror; without ``disk``, no file."""

    spec: Spec
    keys: bytes
    disk: Path | None
    context: Context
    runner: Runner
    client: Client


def mirrors(spec: Spec) -> tuple[str, tuple[Mirror, ...]]:
    """Return the pattern of the file's name, and the mirrors in the order they are asked.

    A mirror has a list of its own where the first one's is in the base's folder or below it.
    """
    folder, slash, pattern = spec.base.name.rpartition("/")
    own, checksums = folder + slash, spec.properties["base-checksums"]
    others = [url.rstrip("/") + "/" for url in spec.properties.get("base-mirror", "").split()]
    is_beside = checksums.startswith(own)
    return unquote(pattern), tuple(
        Mirror(
            folder=each,
            checksums=each + checksums.removeprefix(own) if is_beside else checksums,
        )
        for each in (own, *others)
    )


def prepare(spec: Spec, workdir: Path, context: Context, runner: Runner) -> Prepared:
    """Fetch and unpack the disk that a maker's signed list names; raises as ``fetch_listed``.

    Raises:
        SpecError: The disk is larger than the spec's ``size``.
        CommandError: It is damaged.
    """
    disk = workdir / "base.disk"
    record = fetch_listed(spec, disk, context, runner)
    return finished(spec, disk, record, label=spec.base.name, runner=runner)


def look_up(spec: Spec, context: Context, runner: Runner) -> BaseRecord:
    """Return which file a spec's signed list names now, without fetching it.

    Raises as ``fetch_listed``, and asks mirrors once.
    """
    return fetch_listed(spec, None, context, runner, retry=replace(RETRY, attempts=1))


def fetch_listed(
    spec: Spec,
    disk: Path | None,
    context: Context,
    runner: Runner,
    *,
    retry: RetryPolicy | None = None,
) -> BaseRecord:
    """Fetch and unpack the file that a spec's signed list names, and record what it was.

    Args:
        spec: Has the properties ``base-checksums`` and ``base-key``.
        disk: The new file; None to fetch none, and only read what is listed.
        context: The run's.
        runner: Starts gpg and gpgv.
        retry: For mirrors that may have it soon; None for ``RETRY``, until the run is ended.

    Raises:
        SpecError: The key file cannot be read.
        SigningError: A list is signed with another key, or with one that is revoked or expired. No
            other mirror is asked then.
        BuildError: No mirror has a list, its signature and the file that agree, or it is not clear
            which file is meant.
    """
    search = _Search(
        spec=spec,
        keys=_keys(spec, context.root),
        disk=disk,
        context=context,
        runner=runner,
        client=Client(environ=context.environ),
    )

    def again(error: Error) -> float | None:
        is_worth_it = isinstance(error, _MirrorError) and error.again
        if is_worth_it:
            context.console.warn(f"{spec.name}: trying again in some seconds")
        return 0 if is_worth_it else None

    policy = retry or replace(RETRY, sleep=runner.children.pause)
    return policy.call(lambda: _from_any(search), again)


def _from_any(search: _Search) -> BaseRecord:
    pattern, every = mirrors(search.spec)
    failures = []
    for mirror in every:
        try:
            return _from(mirror, pattern, search)
        except _MirrorError as error:
            search.context.console.warn(f"{search.spec.name}: {error.message}")
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise _MirrorError(
        f"none of {len(failures)} mirrors has {pattern}: "
        + "; ".join(failure.message for failure in failures),
        again=any(failure.again for failure in failures),
        hint=failures[0].hint,
    )


def _from(mirror: Mirror, pattern: str, search: _Search) -> BaseRecord:
    signer, listed = _list(mirror, search)
    try:
        file = choose(listed, pattern)
    except NoMatchError as error:
        raise _MirrorError(
            f"{mirror.checksums}: {error.message}",
            again=False,
            hint="compare the last part of base= with the names in the list",
        ) from error
    except BuildError as error:
        raise BuildError(f"{mirror.checksums}: {error.message}", hint=error.hint) from error
    url = mirror.folder + quote(file.name)
    search.context.console.info(f"{search.spec.name}: {url}, signed by {signer}")
    if search.disk is not None:
        _fetch(url, file, search.disk, mirror, search)
    return BaseRecord(
        ref=str(search.spec.base),
        digest=str(file.checksum),
        detail=f"{file.name} in {mirror.checksums}, signed by {signer}",
    )


def _fetch(url: str, file: Listed, disk: Path, mirror: Mirror, search: _Search) -> None:
    spec = search.spec
    try:
        fetch(url, file.checksum, disk, search.context, search.runner, largest=largest(spec))
    except ChecksumError as error:
        message = _difference(url, file, mirror.checksums, error.ending, search)
        raise _MirrorError(message, again=True, hint=_LATER) from error
    except BuildError as error:
        failure = error.__cause__
        if not isinstance(failure, HttpError):
            raise
        if failure.status in _MISSING:
            raise _MirrorError(
                f"{url} is missing, though {mirror.checksums} names it: the list is newer than "
                "what the server has",
                again=True,
                hint=_LATER,
            ) from error
        is_cut = isinstance(failure, CutOffError)
        hint = f"{error.hint}; or {_OTHER}" if is_cut else error.hint
        # A download was tried several times already.
        raise _MirrorError(error.message, again=False, hint=hint) from error


def _since(url: str, checksums: str, search: _Search) -> str:
    """Say how a file came to be another than the listed one, by the times that its mirror tells."""
    of_file, of_list = _modified(url, search), _modified(checksums, search)
    if of_file is None or of_list is None:
        return "it was replaced since, or changed on its way"
    if of_file > of_list:
        return "it was replaced after the list was made"
    return (
        "the list is newer than this file, of which the mirror has an older one, or a changed one"
    )


def _modified(url: str, search: _Search) -> float | None:
    """Return when a server says that a file was changed, in seconds; None where it does not."""
    try:
        with search.client.open(url, f"asking for {url}", _ANY, method="HEAD") as answer:
            return parsedate_to_datetime(answer.headers.get("last-modified", "")).timestamp()
    except (HttpError, ValueError, OverflowError):
        return None


def _difference(
    url: str, listed: Listed, checksums: str, ending: Ending | None, search: _Search
) -> str:
    """Say how a mirror's file differs from the one that is listed: it is incomplete, or another."""
    if ending and _is_incomplete(ending, listed.size):
        there = f"it has {ending.size} of {listed.size} bytes" if listed.size else str(ending)
        why = "the mirror has not finished copying it, or has lost a part"
        return f"{url} is incomplete, {there}: {why}"
    since = _since(url, checksums, search)
    message = f"{url} is not the file that {checksums} has the checksum of: {since}"
    if ending and listed.size not in {None, ending.size}:
        return f"{message} (it has {ending.size} bytes, not {listed.size})"
    if ending and listed.size is None and ending.is_whole is None:
        return f"{message} (it has {ending.size} bytes, and nothing tells how many it should have)"
    return message


def _is_incomplete(ending: Ending, size: int | None) -> bool:
    if size is None:
        return ending.is_whole is False
    return ending.size < size and not ending.is_whole


def _list(mirror: Mirror, search: _Search) -> tuple[str, tuple[Listed, ...]]:
    """Return who signed a mirror's list, and its lines."""
    url = mirror.checksums
    data = _read(url, _LIST, search)
    signature = None if CLEAR_SIGNED in data else _signature(url, search)
    try:
        signer, text = verified(data, signature, search.keys, search.runner, search.context.environ)
    except OtherTextError as error:
        raise _MirrorError(f"{url}: {error.message}", again=True) from error
    except SigningError as error:
        raise SigningError(
            f"{url}: {error.message}",
            hint=f"base-key is {search.spec.properties['base-key']}: compare it with the key that "
            "the maker publishes",
        ) from error
    listed = parse(text.decode(errors="replace"))
    if not listed:
        raise BuildError(f"{url} has no SHA-256 or SHA-512 of any file")
    return signer, listed


def _signature(url: str, search: _Search) -> bytes:
    for suffix in SIGNATURES:
        try:
            return _read(url + suffix, _SIGNATURE, search)
        except _MirrorError as error:
            failure = error.__cause__
            if not (isinstance(failure, HttpError) and failure.status in _MISSING):
                raise
    raise _MirrorError(
        f"{url} is not signed: neither within, nor by a file beside it ({', '.join(SIGNATURES)})",
        again=False,
    )


def _read(url: str, limits: Limits, search: _Search) -> bytes:
    try:
        with search.client.open(url, f"reading {url}", limits) as answer:
            return answer.read()
    except HttpError as error:
        raise _MirrorError(error.message, again=error.again is not None, hint=error.hint) from error


def _keys(spec: Spec, root: Path) -> bytes:
    path, line = spec.properties["base-key"], spec.lines.get("base-key")
    try:
        return HostFolder(root).read(path, most=_LARGEST_KEY)
    except (OSError, ForbiddenPathError) as error:
        message = f"cannot be read: {why(error)}" if isinstance(error, OSError) else str(error)
        raise SpecError([Problem(spec.path, line, f"{path} {message}")]) from error
