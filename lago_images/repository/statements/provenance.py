"""State where an image comes from: an in-toto statement with SLSA's provenance, version 1.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.1/provenance have the form; ``BUILD_TYPE`` what its parameters mean here.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lago_images.errors import RepositoryError
from lago_images.repository.records.manifest import Manifest, canonical
from lago_images.repository.records.parsing import parse_json
from lago_images.repository.records.release import NO_COMMIT

# A version of its own at the end: whatever changes what is written below makes it another.
BUILD_TYPE = (
    "https://github.com/lago-project/lago-images/blob/main/docs/verifying-an-image.md#build-type-1"
)
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_BUILDER = re.compile(r"[a-z][a-z0-9+.-]*:\S+")
# git's short form for ssh: [USER@]HOST:PATH.
_SHORT_URL = re.compile(r"(?:[^@/:]+@)?([^@/:]+):(?!//)(.+)")
_NO_TEXTS: Mapping[str, str] = MappingProxyType({})

# Characters of a value in an error.
_SHOWN = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Hold what a manifest does not say of a build.

    Attributes:
        spec: The spec's path in its repository.
        repository: The specs' repository, as ``public_url`` gives it; empty if that is not known.
        builder: A URI that names who ran the build, and is trusted to have done so as recorded.
        run: The URL of the run that built; empty outside CI.
        settings: The settings that shape a build, as text.
        byproducts: The SHA-256 of every other file of the build, by its name.
    """

    spec: str
    repository: str
    builder: str
    run: str = ""
    settings: Mapping[str, str] = field(default_factory=lambda: _NO_TEXTS)
    byproducts: Mapping[str, str] = field(default_factory=lambda: _NO_TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Hold the statement about one disk; ``started`` and ``finished`` in seconds since the epoch.

    ``sha256`` and ``sha512`` are of the file ``disk``, a ``.xz``; ``also`` has the SHA-256 of the
    same disk's other files, by name. The base is as the manifest has it. What else is here is the
    manifest's and ``origin``'s.
    """

    disk: str
    sha256: str
    sha512: str
    build: str
    fingerprint: str
    commit: str
    dirty: bool
    properties: Mapping[str, str]
    base: str
    base_digest: str
    base_detail: str
    tools: Mapping[str, str]
    started: int
    finished: int
    origin: Origin
    also: Mapping[str, str] = field(default_factory=lambda: _NO_TEXTS)

    def to_json(self) -> bytes:
        """Write the statement; the same provenance gives the same bytes.

        Raises:
            RepositoryError: A digest, the commit, the builder or a moment cannot be one.
        """
        return canonical(
            {
                "_type": _STATEMENT,
                "subject": [
                    {"name": self.disk, "digest": {"sha256": self.sha256, "sha512": self.sha512}},
                    *(
                        {"name": name, "digest": _digest_set(name, f"sha256:{sha256}")}
                        for name, sha256 in sorted(self.also.items())
                    ),
                ],
                "predicateType": _PREDICATE,
                "predicate": {
                    "buildDefinition": self._definition(),
                    "runDetails": self._run_details(),
                },
            }
        )

    def _definition(self) -> dict[str, Any]:
        return {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "repository": self.origin.repository,
                "commit": self.commit,
                "dirty": self.dirty,
                "spec": self.origin.spec,
                "properties": dict(self.properties),
            },
            "internalParameters": {
                "build": self.build,
                "fingerprint": self.fingerprint,
                "settings": dict(self.origin.settings),
            },
            "resolvedDependencies": [*_specs(self.origin.repository, self.commit), self._base()],
        }

    def _base(self) -> dict[str, Any]:
        return {
            "name": self.base,
            "digest": _digest_set(self.base, self.base_digest),
            "annotations": {"detail": self.base_detail},
        }

    def _run_details(self) -> dict[str, Any]:
        if not _BUILDER.fullmatch(self.origin.builder):
            raise RepositoryError(f"the builder {_short(self.origin.builder)} is no URI")
        return {
            "builder": {"id": self.origin.builder, "version": dict(self.tools)},
            "metadata": {
                "invocationId": self.origin.run or self.build,
                "startedOn": moment(self.started).strftime(_MOMENT),
                "finishedOn": moment(self.finished).strftime(_MOMENT),
            },
            "byproducts": [
                {"name": name, "digest": _digest_set(name, f"sha256:{digest}")}
                for name, digest in sorted(self.origin.byproducts.items())
            ],
        }


def of(manifest: Manifest, origin: Origin, *, also: Collection[str] = ()) -> Provenance:
    """Make the provenance of a build from its manifest and ``origin``.

    ``also`` are the other forms in which its disk is public.
    """
    disk, base, staging = manifest.disk, manifest.base, manifest.key.staging
    files = {staging.also(form): manifest.also[form].sha256 for form in also}
    return Provenance(
        disk=staging.disk.removeprefix(staging.folder),
        sha256=disk.sha256,
        sha512=disk.sha512,
        build=manifest.build_id,
        fingerprint=manifest.fingerprint,
        commit=manifest.commit,
        dirty=manifest.dirty,
        properties=manifest.properties,
        base=base.ref,
        base_digest=base.digest,
        base_detail=base.detail,
        tools=manifest.tools,
        started=manifest.created - manifest.seconds,
        finished=manifest.created,
        origin=origin,
        also={key.removeprefix(staging.folder): sha256 for key, sha256 in files.items()},
    )


def parse(data: bytes, where: str) -> Provenance:
    """Read the provenance in a statement that ``to_json`` wrote.

    Raises:
        RepositoryError: It is none, or differs by a byte from what ``to_json`` writes of it.
    """
    plain = parse_json(data, f"{where} is no statement of provenance")
    try:
        stated = _read(plain)
        is_ours = stated.to_json() == data
    except (ValueError, RepositoryError) as error:
        message = str(error)[:_SHOWN]
        raise RepositoryError(f"{where} is no statement of provenance: {message}") from error
    # Byte by byte: a reader of JSON may overlook what another finds, such as a second key.
    if not is_ours:
        raise RepositoryError(
            f"{where} is no statement of provenance as this lago-images writes it: it says more, "
            "or the same in other bytes",
            hint="a newer lago-images may have written it: upgrade; else it was tampered with",
        )
    return stated


def moment(seconds: int) -> datetime:
    """Convert seconds since the epoch; raises ``RepositoryError`` past the year 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise RepositoryError(f"{seconds} s since the epoch is in no year: {error}") from error


def public_url(remote: str) -> str:
    """Return a git remote's URL as it may be published: without user, password and query.

    Empty for a path, which nobody else can use.
    """
    short = _SHORT_URL.fullmatch(remote)
    if short:
        return f"ssh://{short[1]}/{short[2].removeprefix('/')}"
    try:
        url = urlsplit(remote)
    except ValueError:
        return ""
    if url.scheme not in {"http", "https", "ssh", "git"} or not url.hostname:
        return ""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def _specs(repository: str, commit: str) -> list[dict[str, Any]]:
    if commit == NO_COMMIT:
        return []
    if not _COMMIT.fullmatch(commit):
        raise RepositoryError(f"the commit {_short(commit)} is no commit's id")
    uri = {"uri": f"git+{repository}@{commit}"} if repository else {}
    return [{"name": "specs", **uri, "digest": {"gitCommit": commit}}]


def _digest_set(of_what: str, digest: str) -> dict[str, str]:
    if not _DIGEST.fullmatch(digest):
        raise RepositoryError(
            f"the digest of {of_what} is {_short(digest)}, not sha256:… or sha512:…"
        )
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _seconds(moment: str) -> int:
    return int(datetime.strptime(moment, _MOMENT).replace(tzinfo=UTC).timestamp())


def _read(plain: object) -> Provenance:
    """Read a statement; raises ``ValueError`` for what is missing or wrong."""
    definition, run = "predicate.buildDefinition", "predicate.runDetails"
    given, internal = f"{definition}.externalParameters", f"{definition}.internalParameters"
    base = f"{definition}.resolvedDependencies.-1"
    build = _at(plain, f"{internal}.build", str)
    invocation = _at(plain, f"{run}.metadata.invocationId", str)
    byproducts = _at(plain, f"{run}.byproducts", list)
    also = _at(plain, "subject", list)[1:]
    [(algorithm, digest)] = _texts(plain, f"{base}.digest").items()
    return Provenance(
        disk=_at(plain, "subject.0.name", str),
        sha256=_at(plain, "subject.0.digest.sha256", str),
        sha512=_at(plain, "subject.0.digest.sha512", str),
        build=build,
        fingerprint=_at(plain, f"{internal}.fingerprint", str),
        commit=_at(plain, f"{given}.commit", str),
        dirty=_at(plain, f"{given}.dirty", bool),
        properties=_texts(plain, f"{given}.properties"),
        base=_at(plain, f"{base}.name", str),
        base_digest=f"{algorithm}:{digest}",
        base_detail=_at(plain, f"{base}.annotations.detail", str),
        tools=_texts(plain, f"{run}.builder.version"),
        started=_seconds(_at(plain, f"{run}.metadata.startedOn", str)),
        finished=_seconds(_at(plain, f"{run}.metadata.finishedOn", str)),
        origin=Origin(
            spec=_at(plain, f"{given}.spec", str),
            repository=_at(plain, f"{given}.repository", str),
            builder=_at(plain, f"{run}.builder.id", str),
            run="" if invocation == build else invocation,
            settings=_texts(plain, f"{internal}.settings"),
            byproducts={
                _at(each, "name", str): _at(each, "digest.sha256", str) for each in byproducts
            },
        ),
        also={_at(each, "name", str): _at(each, "digest.sha256", str) for each in also},
    )


def _texts(plain: object, path: str) -> Mapping[str, str]:
    values = _at(plain, path, dict)
    if not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"{path} is not all text")
    return values


def _at(plain: object, path: str, kind: type[T]) -> T:
    """Return what is at a path of keys and indexes; raises ``ValueError`` for another kind."""
    value: Any = plain
    try:
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"it has no {path}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} is {_short(value)}")  # noqa: TRY004 -- of what was read, not of us
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
