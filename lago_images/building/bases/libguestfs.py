"""Prepare ``libguestfs:`` bases: virt-builder's templates, from signed indexes.

virt-builder itself would start an appliance to hand out a template, before anything is customised.
The signed index has all that is needed to do without: the file's name and its checksum.
"""

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from lago_images.building.bases.prepared import Prepared
from lago_images.building.bases.simple import fetch, finished, largest
from lago_images.building.model import Context
from lago_images.disks.unpack import Checksum, unpack
from lago_images.errors import BuildError, CommandError, SigningError
from lago_images.host.gpg import Gpg, fingerprints, throw_away
from lago_images.host.http import Client, HttpError, Limits, TooLargeError
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.rendering import index
from lago_images.settings import Settings, TemplateSource
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import Spec

_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_LARGEST_KEY = 2**20
# An index is no larger, in bytes; and it lies where its source says: what another host answers, the
# one who named this URL may not be meant to see.
_LIMITS = Limits(size=64 * 2**20, same_host_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template of a source: its index's entry, and where its file is."""

    source: str
    entry: index.Entry

    @property
    def url(self) -> str:
        # As virt-builder does: relative to the index, whose query string is not carried over.
        return urljoin(self.source, quote(self.entry.file))


def configured(settings: Settings, environ: Mapping[str, str]) -> tuple[TemplateSource, ...]:
    """Return the sources that the settings name, or else those of virt-builder here."""
    return settings.template_sources or _own(environ)


def find(
    name: str,
    arch: str,
    sources: tuple[TemplateSource, ...],
    *,
    folder: Path,
    environ: Mapping[str, str],
    runner: Runner,
) -> Template:
    """Find the template of a name or alias, in the first source that has it.

    Args:
        name: virt-builder's name for it.
        arch: Its architecture.
        sources: In the order they are asked.
        folder: What the sources' key files are relative to.
        environ: For the user's own keyring.
        runner: Starts gpg.

    Raises:
        BuildError: No source has it; names what was wrong with each that could not be read.
        SigningError: A source's signature is bad. No other source is asked then.
    """
    failures = []
    for source in sources:
        try:
            text = _signed_text(source, folder, environ, runner)
        except (OSError, HttpError) as error:
            failures.append(f"{source.url}: {getattr(error, 'what', error)}")
            continue
        entry = _entry(text, name, arch, source)
        if entry is not None:
            return Template(source=source.url, entry=entry)
    raise BuildError(
        f"no template {name} for {arch} in {', '.join(s.url for s in sources) or 'any source'}"
        + "".join(f"; {failure}" for failure in failures),
        hint="template-sources in lago-images.toml names other sources; "
        "virt-builder --list shows the templates of its own",
    )


def _own(environ: Mapping[str, str]) -> tuple[TemplateSource, ...]:
    """Return those of virt-builder's configuration (virt-builder(1), SOURCES OF TEMPLATES)."""
    config = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    system = environ.get("VIRT_BUILDER_DIRS", "").split(":")
    roots = [Path(config) / "virt-builder"]
    # For repos.d VIRT_BUILDER_DIRS stands in place of /etc, and not beside it.
    roots += [Path(d) / "virt-builder" for d in system if d] or [Path("/etc/virt-builder")]
    sources: list[TemplateSource] = []
    for file in (f for root in roots for f in sorted(root.glob("repos.d/*.conf"))):
        # A URL may have percent signs, which are no interpolation.
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(file.read_text(encoding="utf-8"), source=str(file))
        except (OSError, ValueError, configparser.Error) as error:
            raise BuildError(
                f"virt-builder's configuration {file} cannot be read: {error}"
            ) from error
        for section in parser.sections():
            values = parser[section]
            if "uri" in values and values.get("format", "native") == "native":
                key = values.get("gpgkey", "").removeprefix("file://")
                sources.append(TemplateSource(url=values["uri"], key=key))
    return tuple(sources)


def _signed_text(
    source: TemplateSource, folder: Path, environ: Mapping[str, str], runner: Runner
) -> bytes:
    data = _read(source.url, environ)
    if not (source.fingerprint or source.key):
        if data.startswith(_SIGNED):
            raise SigningError(
                f"{source.url} is signed, and no key is named to check it with",
                hint="give the source a fingerprint and a key in lago-images.toml",
            )
        return data
    if not data.startswith(_SIGNED):
        raise SigningError(f"{source.url} is not signed, as its fingerprint says it must be")
    with throw_away(runner, environ) as gpg:
        if source.key:
            wanted = _import(gpg, source, folder)
        else:
            gpg = Gpg(runner=runner, home=None, environ=environ)  # noqa: PLW2901 -- the user's own
            wanted = {_normal(source.fingerprint)}
        try:
            signer, text = gpg.signed_text(data)
        except SigningError as error:
            raise SigningError(f"{source.url}: {error.message}") from error
    if signer not in wanted:
        raise SigningError(f"{source.url} is signed by {signer}, not by {', '.join(wanted)}")
    return text


def _import(gpg: Gpg, source: TemplateSource, folder: Path) -> set[str]:
    """Import a source's key file; returns the fingerprints whose signature is good enough."""
    try:
        armour = _key(source.key, folder)
        imported = set(fingerprints(gpg, armour))
        gpg.import_keys(armour)
    except (OSError, ForbiddenPathError) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise SigningError(
            f"{source.url}: its key {source.key} cannot be used: {reason}"
        ) from error
    except CommandError as error:
        raise SigningError(
            f"{source.url}: its key {source.key} cannot be used: {error.last_words}"
        ) from error
    if not source.fingerprint:
        return imported
    wanted = {_normal(source.fingerprint)} & imported
    if not wanted:
        raise SigningError(f"{source.key} does not have the key {source.fingerprint}")
    return wanted


def _key(path: str, folder: Path) -> bytes:
    # The settings take no absolute path: it is of this host's own virt-builder configuration.
    if path.startswith("/"):
        return Path(path).read_bytes()
    return HostFolder(folder).read(path, most=_LARGEST_KEY)


def _entry(text: bytes, name: str, arch: str, source: TemplateSource) -> index.Entry | None:
    entries, problems = index.parse(text, source.url)
    if not entries and problems:
        # What a URL answers is not shown: it may be no index but what only this host can read.
        raise BuildError(f"{source.url} is not an index: line {problems[0].line or 1} is wrong")
    # By architecture first. virt-builder resolves aliases before it looks at that, so that an
    # alias on another architecture's image hides the image of that name.
    named = [
        entry
        for entry in entries
        if entry.arch == arch and name in (entry.name, *entry.get("aliases").split())
    ]
    exact = [entry for entry in named if entry.name == name]
    return max(exact or named, key=lambda entry: entry.revision, default=None)


def _read(url: str, environ: Mapping[str, str]) -> bytes:
    if not url.startswith("file://"):
        with Client(environ=environ).open(url, f"reading {url}", _LIMITS) as answer:
            return answer.read()
    with Path(unquote(urlsplit(url).path)).open("rb") as file:
        data = file.read(_LIMITS.size + 1)
    if len(data) > _LIMITS.size:
        raise TooLargeError(f"reading {url}", f"it has more than {_LIMITS.size} bytes")
    return data


def _normal(fingerprint: str) -> str:
    return fingerprint.replace(" ", "").upper().removeprefix("0X")


_SHA512 = re.compile(r"[0-9a-f]{128}")


def prepare(spec: Spec, workdir: Path, context: Context, runner: Runner) -> Prepared:
    """Fetch the unmodified disk of a template, checked against its signed index.

    Raises:
        BuildError: No source has the template, it could not be fetched, or the sources are on the
            network, which is turned off.
        SigningError: An index is not signed as it must be.
    """
    template = look_up(spec, context, runner)
    url, source = template.url, template.source
    # It might be a file that only this host can read, or of a host that only this one reaches.
    if not url.startswith(source.rpartition("/")[0] + "/"):
        raise BuildError(f"{source} names a template elsewhere, neither beside nor below it")
    checksum = _checksum(template)
    disk = workdir / "base.disk"
    context.console.info(f"{spec.name}: template {url}")
    if url.startswith("file://"):
        file = Path(unquote(urlsplit(url).path))
        if not file.is_file():
            raise BuildError(f"the template {url} is missing")
        check = runner.children.check
        unpack(file, disk, expected=checksum, label=url, largest=largest(spec), check=check)
    else:
        fetch(url, checksum, disk, context, runner, largest=largest(spec))
    return finished(spec, disk, record(spec, template), label=url, runner=runner)


def look_up(spec: Spec, context: Context, runner: Runner) -> Template:
    """Find the template that a spec stands on, without its disk; raises as ``prepare``."""
    return find(
        spec.base.name,
        spec.arch,
        _reachable(configured(context.settings, context.environ), context.settings),
        folder=context.settings.folder,
        environ=context.environ,
        runner=runner,
    )


def record(spec: Spec, template: Template) -> BaseRecord:
    """Return what a manifest says of a template; raises ``BuildError`` without a checksum."""
    entry = template.entry
    detail = f"revision {entry.revision} of {entry.name} in {template.source}"
    return BaseRecord(ref=str(spec.base), digest=str(_checksum(template)), detail=detail)


def _reachable(
    sources: tuple[TemplateSource, ...], settings: Settings
) -> tuple[TemplateSource, ...]:
    """Return the sources that may be asked: those on this host, where the network is turned off."""
    local = tuple(source for source in sources if source.url.startswith("file://"))
    if settings.network or not sources or local:
        return sources if settings.network else local
    raise BuildError(
        f"network = false, and the template source {sources[0].url} is on the network",
        hint="turn the network on, or name a file:// source in virt-builder's configuration",
    )


def _checksum(template: Template) -> Checksum:
    digits = template.entry.checksum or template.entry.get("checksum")
    if not _SHA512.fullmatch(digits):
        raise BuildError(
            f"{template.source} has no sha512 checksum for {template.entry.name}",
            hint="a template without a checksum could be anything; ask its publisher for one",
        )
    return Checksum(algorithm="sha512", digits=digits)
