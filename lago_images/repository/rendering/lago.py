"""lago's files: ``repo.metadata`` for the repository, ``.hash`` and ``.metadata`` for a build.

As lago 0.46 reads them (``lago/templates.py``, ``lago/plugins/vm.py``).
"""

import json
import re
from dataclasses import dataclass

from lago_images.errors import Problem, RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import parse_json
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering.index import listing_mark
from lago_images.specs.model import Spec

# lago keeps a template in a file `<repository>:<template>:<version>`.
_IN_FILE_NAMES = re.compile(r"[^-A-Za-z0-9._+]")
_PLAIN_ARCH = "x86_64"
_PASSWORD = "root-password"  # noqa: S105 -- a property's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a template, as lago knows it.

    The digests are of the compressed disk, in hexadecimal: lago itself ignores them.
    """

    template: str
    version: str
    handle: str
    timestamp: int
    sha256: str = ""
    sha512: str = ""


def render(state: State, *, name: str, base_url: str) -> bytes:
    """Render ``repo.metadata``: each release that is not withdrawn is a version."""
    # By hand, a line a version: json's own indentation takes seconds for 10,000 releases.
    templates: dict[str, list[str]] = {}
    for version in versions(state):
        fields = {
            "source": name,
            "handle": version.handle,
            "timestamp": version.timestamp,
            "sha256": version.sha256,
            "sha512": version.sha512,
        }
        line = f"{_text(version.version)}: {_text(fields)}"
        templates.setdefault(version.template, []).append(line)
    shown = [
        f' {_text(template)}: {{"versions": {{\n  ' + ",\n  ".join(lines) + "}}"
        for template, lines in templates.items()
    ]
    # lago's other type, file, has a path on the machine of whoever uses it.
    sources = {name: {"type": "http", "args": {"baseurl": base_url}}}
    text = (
        f'{{"name": {_text(name)},\n'
        # Not lago's: see listing_mark.
        f'"releases": {_text(listing_mark(state))},\n'
        f'"sources": {_text(sources)},\n'
        f'"templates": {{\n' + ",\n".join(shown) + "}}\n"
    )
    return text.encode()


def _text(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False)


def versions(state: State) -> list[Version]:
    """List all versions of all templates, by template and time.

    A template's timestamps strictly increase with the revision, whatever the publishers' clocks
    said: lago takes the version with the largest.
    """
    by_name: dict[str, list[tuple[int, Release]]] = {}
    for name, arch in state.images:
        times: dict[int, int] = {}
        last = -1
        for release in state.history(name, arch):
            # Withdrawn ones count: a version's timestamp must not move when another is withdrawn.
            last = times[release.revision] = max(release.published, last + 1)
        live = [(times[release.revision], release) for release in state.live(name, arch)]
        by_name.setdefault(name, []).extend(live)
    listed = []
    for name in sorted(by_name):
        last = -1
        for time, release in sorted(by_name[name], key=lambda pair: (pair[0], pair[1].arch)):
            # Of two architectures released in one second lago would take either as the newest.
            last = max(time, last + 1)
            if release.image:
                listed.append(_version(release, release.image, last))
    return listed


def _version(release: Release, image: ReleasedImage, timestamp: int) -> Version:
    return Version(
        template=release.name,
        version=version_name(release, image.manifest),
        handle=image.public.handle,
        timestamp=timestamp,
        sha256=image.manifest.disk.sha256,
        sha512=image.manifest.disk.sha512,
    )


def version_name(release: Release, manifest: Manifest) -> str:
    """Return the lago version: the spec's and the revision, so that it never means two contents.

    ``v<revision>`` where the spec has none; an architecture other than x86_64 is added.
    """
    version = _IN_FILE_NAMES.sub("-", manifest.properties.get("version", "").strip())
    name = f"{version}-{release.revision}" if version else f"v{release.revision}"
    # lago knows no architectures: two images under one name would be one file in its cache.
    return name if release.arch == _PLAIN_ARCH else f"{name}-{release.arch}"


def parse(data: bytes, path: str = layout.METADATA) -> tuple[list[Version], list[Problem]]:
    """Read the versions in a ``repo.metadata``, and all that lago could not use."""
    try:
        plain = parse_json(data, "it is no JSON")
        sources = {
            name
            for name, source in plain["sources"].items()
            if source["type"] == "http" and isinstance(source["args"]["baseurl"], str)
        }
        templates = plain["templates"].items()
        listed = [
            (template, version, fields)
            for template, of_template in templates
            for version, fields in of_template["versions"].items()
        ]
        problems = [] if isinstance(plain["name"], str) else [Problem(path, None, "no name")]
    except (RepositoryError, TypeError, KeyError, AttributeError) as error:
        return [], [Problem(path, None, f"not a lago repository: {error!r}")]
    versions_: list[Version] = []
    for template, version, fields in listed:
        if message := _version_problem(fields, sources):
            problems.append(Problem(path, None, f"{template} {version}: {message}"))
        else:
            versions_.append(
                Version(
                    template=template,
                    version=version,
                    handle=fields["handle"],
                    timestamp=fields["timestamp"],
                    sha256=str(fields.get("sha256", "")),
                    sha512=str(fields.get("sha512", "")),
                )
            )
    return versions_, problems


def _version_problem(fields: object, sources: set[str]) -> str:
    if not isinstance(fields, dict):
        return "not an object"
    if fields.get("source") not in sources:
        return f"source {fields.get('source')!r} is not among the sources"
    if not isinstance(fields.get("handle"), str):
        return "no handle"
    # Not isinstance: in Python True is an int, too.
    if type(fields.get("timestamp")) is not int:
        return "no timestamp that is a whole number"
    return ""


def hash_file(manifest: Manifest) -> bytes:
    """Make ``.hash``: the sha1 of the decompressed disk. lago strips blanks around it."""
    return manifest.disk.sha1.encode() + b"\n"


def metadata_file(manifest: Manifest, spec: Spec) -> bytes:
    """Make ``.metadata``: all the spec's properties, and the root password where the spec sets one.

    lago reads ``distro`` and ``root-partition``; its own documentation names ``root-password``,
    in plain text. The property wins over the operation ``root-password password:…``.
    """
    password = _password(spec)
    plain = {_PASSWORD: password} if password else {}
    named = {"name": manifest.name, "arch": manifest.arch}
    text = json.dumps(
        {**named, **plain, **manifest.properties}, sort_keys=True, ensure_ascii=False, indent=1
    )
    return text.encode() + b"\n"


def _password(spec: Spec) -> str:
    """Return what the last command sets; empty where it locks the account or makes one up."""
    set_ = [operation.argument for operation in spec.operations if operation.name == _PASSWORD]
    kind, _, secret = "".join(set_[-1:]).partition(":")
    return secret if kind == "password" else ""
