"""Ask a distribution's archives what they have, by an apt of our own, which installs nothing.

That apt has its own folders, the sources and keys of a bootstrap, and how this host's reaches its
mirrors; of what is installed on the host it knows nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.bases.bootstrap.debian import Recipe
from lago_images.errors import CommandError, HostError, ToolMissingError
from lago_images.host.process import Runner
from lago_images.repository.records.changes import Package, PackageChanges, VersionChange

# How this host's administrator has apt reach its mirrors, which holds for a bootstrap too.
_HOSTS = re.compile(
    r"^(Acquire::(?:(?:https?|ftp)::(?:Proxy(?:-Auto-Detect)?|CaInfo|Verify-Peer|Timeout)(?:::\S+)?"
    r"|Retries|Check-Valid-Until|Check-Date|ForceIPv[46])) (\"[^\"]*\";)$",
    re.MULTILINE,
)
# Seconds: a mirror that answers nothing is asked several times, for half a minute each.
_LONGEST = 600.0
_SETTINGS = """\
Dir "{folder}/";
Dir::State::status "{folder}/status";
Dir::Etc::Trusted "{trusted}";
Dir::Etc::TrustedParts "{trusted_parts}";
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ {architectures} }};
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
"""
_FOLDERS = (
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
)
_INSTALLED = "Status: install ok installed\n"
# What apt would do: "Inst NAME [OLD] (NEW ORIGIN [ARCH])", and without [OLD] for a new package;
# "Remv NAME [OLD]". A name has its architecture where that is not the machine's own.
_INSTALLS = re.compile(r"Inst ([^ :]+)(?::(\S+))? (?:\[(\S+)\] )?\((\S+) .*\[([\w-]+)\]\)")
_REMOVES = re.compile(r"Remv ([^ :]+)(?::(\S+))? \[(\S+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an archive has otherwise than a list of installed packages.

    Attributes:
        changes: What apt's resolver would change today.
        elsewhere: Packages that are in no archive in this version, and have no newer one there.
    """

    changes: PackageChanges
    elsewhere: tuple[Package, ...]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Resolved:
    """A package as apt would install it: ``sha256`` is that of its file, ``size`` in bytes."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        """Return the name that apt has for its file."""
        version = self.version.replace("_", "%5f").replace(":", "%3a")
        return f"{self.name}_{version}_{self.arch}.deb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apt:
    """An apt in a folder, which knows what the archives of a bootstrap have today."""

    folder: Path
    runner: Runner

    @property
    def lists(self) -> Path:
        """Return the folder of what the archives have."""
        return self.folder / "var/lib/apt/lists"

    def bootstrap(self, todo: Recipe) -> tuple[Resolved, ...]:
        """Return what mmdebstrap would install today, by the two calls of apt that it makes.

        Raises:
            CommandError: Apt finds no way to.
            HostError: The archives have two files of one package.
        """
        native, suite = f"?architecture({todo.arch})", todo.release.codename
        one = f"?narrow(?or(?archive(^{suite}$),?codename(^{suite}$)),{native}"
        required = f"{one},?and(?priority(required),?not(?essential)))"
        first = self._install({}, f"{one},?essential)")
        return tuple(sorted(self._install(first, *todo.packages, required).values()))

    def _install(
        self, installed: Mapping[tuple[str, str], Resolved], *wanted: str
    ) -> Mapping[tuple[str, str], Resolved]:
        """Return what is installed when these are, by name and architecture."""
        known = self._stanzas(installed.values())
        status = "".join(f"{known[each]}\n{_INSTALLED}\n" for each in installed.values())
        out = self._simulate(status, "install", *wanted)
        installs = [match.groups() for line in out.splitlines() if (match := _INSTALLS.match(line))]
        if any(_REMOVES.match(line) for line in out.splitlines()):
            raise HostError("apt would remove packages that a bootstrap has installed")
        new = [Package(name=name, version=new, arch=arch) for name, _, _, new, arch in installs]
        resolved = self._stanzas(new)
        return {**installed, **{(each.name, each.arch): each for each in resolved}}

    def download(self, packages: Iterable[Resolved], folder: Path) -> None:
        """Download the files of packages into a folder, checked; raises ``CommandError``."""
        if names := [f"{p.name}:{_own(p.arch)}={p.version}" for p in packages]:
            # However long it takes: a mirror that answers nothing ends it all the same.
            self.ask("apt-get", "download", "--quiet=2", *names, cwd=folder, timeout=None)

    def upgrade(self, packages: Iterable[Package]) -> Upgrade:
        """Return what an upgrade of installed packages would change today.

        Raises ``CommandError`` where apt finds no way to.
        """
        installed = sorted(packages)
        known = {
            (entry["Package"], entry["Version"], entry["Architecture"]): stanza
            for stanza, entry in self._available(installed)
        }
        newest = {
            (name, arch): known[name, version, arch] for name, version, arch in reversed([*known])
        }
        status = "".join(_installed(each, known, newest) for each in installed)
        out = self._simulate(status, "--fix-broken", "dist-upgrade")
        changes = _changes(out)
        changed = {each.name for each in changes.removed}
        changed |= {each.name for each in changes.upgraded}
        return Upgrade(
            changes=changes,
            elsewhere=tuple(
                each
                for each in installed
                if (each.name, each.version, each.arch) not in known and each.name not in changed
            ),
        )

    def _simulate(self, status: str, *what: str) -> str:
        """Return what apt would do where dpkg's database has this status."""
        file = self.folder / "installed"
        file.write_text(status, encoding="utf-8")
        # Else apt would keep its cache for this status, and make it anew for the next question.
        other = (f"--option=Dir::State::status={file}", "--option=Dir::Cache::pkgcache=")
        options = other if status else ()
        return self.ask("apt-get", *options, "--simulate", "--yes", "--quiet=2", *what)

    def _available(
        self, packages: Iterable[Package | Resolved]
    ) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield what the archives say of packages of these names, in any version."""
        names = sorted({f"{each.name}:{_own(each.arch)}" for each in packages})
        if not names:
            return
        try:
            out = self.ask("apt-cache", "show", "--quiet=2", *names)
        except CommandError as error:
            # It has none of them.
            if not any("No packages found" in line for line in error.tail):
                raise
            return
        for stanza in out.strip("\n").split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in stanza.splitlines()
                if ": " in line and not line.startswith(" ")
            )
            if {"Package", "Version", "Architecture"} <= fields.keys():
                yield stanza, fields

    def _stanzas(self, packages: Iterable[Package | Resolved]) -> Mapping[Resolved, str]:
        """Return what the archives say of packages in their very versions."""
        wanted = {(each.name, each.version, each.arch) for each in packages}
        found: dict[Resolved, str] = {}
        for stanza, fields in self._available(packages):
            name, version, arch = (fields[f] for f in ("Package", "Version", "Architecture"))
            if (name, version, arch) in wanted and {"SHA256", "Size"} <= fields.keys():
                sha256, size = fields["SHA256"], int(fields["Size"])
                each = Resolved(name=name, version=version, arch=arch, sha256=sha256, size=size)
                found.setdefault(each, stanza)
        if len(found) != len(wanted):
            raise HostError("the archives have no file, or several, of a package")
        return found

    def ask(self, *argv: str, cwd: Path | None = None, timeout: float | None = _LONGEST) -> str:
        """Run one of apt's programs and return what it prints; raises ``CommandError``."""
        settings = {"APT_CONFIG": str(self.folder / "apt.conf")}
        out = self.runner.capture(argv, env=settings, cwd=cwd, timeout=timeout, doing="asking apt")
        return out.decode(errors="replace")


def read_archives(
    todo: Recipe, folder: Path, runner: Runner, *, foreign: Iterable[str] = ()
) -> Apt:
    """Read what the archives of a bootstrap have, with its signatures checked.

    Args:
        todo: The bootstrap.
        folder: Where that apt keeps everything: a new folder, which the caller removes.
        runner: Starts apt.
        foreign: Architectures besides the machine's own, as the distribution spells them.

    Raises:
        HostError: An archive could not be read, is signed by nobody who is trusted, or is too old.
        ToolMissingError: This host has no apt.
    """
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    for name in ("status", "etc/apt/sources.list"):
        (folder / name).touch()
    settings = folder / "apt.conf"
    # For nobody else to read: a proxy of the host's may have a password.
    settings.touch(mode=0o600, exist_ok=False)
    lines = host_settings(runner)
    settings.write_text(_settings(todo, folder, runner, foreign) + "".join(f"{x}\n" for x in lines))
    sources = "".join(f"{line}\n" for line in todo.archives)
    (folder / "etc/apt/sources.list").write_text(sources, encoding="utf-8")
    apt = Apt(folder=folder, runner=runner)
    try:
        # Without it apt takes an archive that it cannot reach for one that has nothing new.
        apt.ask("apt-get", "update", "--quiet=2", "--error-on=any")
    except CommandError as error:
        raise HostError(
            f"the archives of {todo.release.title} cannot be read: {_reason(error)}",
            hint="mirror= in the spec names another mirror; what apt says of it: "
            "apt-get update, with these lines in a sources.list: " + "; ".join(todo.archives),
        ) from error
    return apt


def host_settings(runner: Runner) -> list[str]:
    """Return the settings, a line each, by which this host's apt reaches its mirrors."""
    try:
        out = runner.capture(["apt-config", "dump", "Acquire"], doing="reading apt's settings")
    except ToolMissingError:
        return []
    return [f"{m[1]} {m[2]}" for m in _HOSTS.finditer(out.decode(errors="replace"))]


def _settings(todo: Recipe, folder: Path, runner: Runner, foreign: Iterable[str]) -> str:
    # As mmdebstrap takes keys: what the host trusts, and the distribution's.
    names = ("T", "Dir::Etc::trusted/f", "P", "Dir::Etc::trustedparts/d")
    out = runner.capture(["apt-config", "shell", *names], doing="reading apt's settings").decode()
    keyring = todo.release.distribution.keyring
    found = dict(re.findall(r"^([TP])='([^'\"]*)'$", out, re.MULTILINE))
    architectures = dict.fromkeys([todo.arch, *foreign])
    return _SETTINGS.format(
        folder=folder,
        trusted=keyring if keyring.exists() else found.get("T", ""),
        trusted_parts=found.get("P", ""),
        arch=todo.arch,
        architectures=" ".join(f'"{each}";' for each in architectures),
    )


def _own(arch: str) -> str:
    """Return what follows a name after a colon: packages for all machines are the machine's own."""
    return "native" if arch == "all" else arch


def _installed(
    package: Package,
    known: Mapping[tuple[str, str, str], str],
    newest: Mapping[tuple[str, str], str],
) -> str:
    """Return the entry of an installed package in dpkg's database.

    Where the archive has the very version, it is the archive's own entry: apt would take another
    one for another package of that version. An older one provides what the newest does.
    """
    if own := known.get((package.name, package.version, package.arch)):
        return f"{own}\n{_INSTALLED}\n"
    provides = re.search(
        r"^Provides: .*\n", newest.get((package.name, package.arch), ""), re.MULTILINE
    )
    return (
        f"Package: {package.name}\n{_INSTALLED}Version: {package.version}\n"
        f"Architecture: {package.arch}\n{provides[0] if provides else ''}"
        "Maintainer: nobody\nDescription: as its version is in no archive\n\n"
    )


def _changes(simulated: str) -> PackageChanges:
    added, removed, upgraded = [], [], []
    for line in simulated.splitlines():
        if match := _INSTALLS.match(line):
            name, _, old, new, arch = match.groups()
            # The same version twice: another build of it, which has the same files.
            if old == new:
                continue
            if old:
                upgraded.append(VersionChange(name=name, old=old, new=new))
            else:
                added.append(Package(name=name, version=new, arch=arch))
        elif match := _REMOVES.match(line):
            removed.append(Package(name=match[1], version=match[3], arch=match[2] or ""))
    upgraded.sort(key=lambda change: change.name)
    return PackageChanges(
        added=tuple(sorted(added)), removed=tuple(sorted(removed)), upgraded=tuple(upgraded)
    )


def _reason(error: CommandError) -> str:
    """Return the line of apt's that explains most."""
    errors = [line for line in error.tail if line.startswith("E: ")]
    return (errors or list(error.tail) or [error.message])[0]
