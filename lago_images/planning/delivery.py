"""Find the files that do not lie here as a new clone of the commit would have them.

What git delivers of a commit depends on the clone, too: on ``core.autocrlf``, ``core.eol``,
``core.symlinks`` and ``core.fileMode``, on attributes that are in no commit, on filters, and on
what of these was otherwise when a file was written. Git takes such a file for unchanged, because it
would store it as it was stored; but a fingerprint of its bytes would be this clone's alone.

So the files are compared with those of a clone without any settings but its filters: by git's id of
the bytes, and where the commit's own attributes have git convert a file, with what git writes then.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from lago_images.errors import GitError
from lago_images.planning.digests import LINK, Contents, hash_file
from lago_images.planning.git import Program
from lago_images.planning.git_output import GITLINK, parse_index

# The attributes by which a checkout converts a file where no setting does (gitattributes(5)). Of
# the values of eol only crlf does.
_CONVERTING = ("eol", "ident", "working-tree-encoding", "filter")
_ATTRIBUTES = (*_CONVERTING, "text")
_UNSPECIFIED = "unspecified"
_NO_VALUE = frozenset({_UNSPECIFIED, "unset", "lf"})
# A pointer of its own stands for the content that it names: no filter is needed.
_LFS = "lfs"
_NO_FILTER = frozenset({_UNSPECIFIED, "unset", "set", _LFS})
_WITHOUT_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_PARAMETERS": "",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.attributesFile",
    "GIT_CONFIG_VALUE_0": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
}
_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
_OTHER_LINKS = (
    "it is a symbolic link in the commit or here, and not in both: core.symlinks is false",
    " config --replace-all core.symlinks true",
)
_OTHER_MODE = (
    "it may be executed in the commit or here, and not in both: core.fileMode is false",
    " config --replace-all core.fileMode true",
)
# By path, the values of attributes by their names.
Attributes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that is not as the commit delivers it.

    Attributes:
        module: The folder of the submodule that it is in, with ``/`` after it; else empty.
        path: In that.
        why: What made it so, as far as that is known.
        fix: What removes the cause, if anything is needed: for git, where it starts with a space.
    """

    module: str
    path: str
    why: str
    fix: str

    def commands(self, prefix: str = "") -> str:
        """Return what mends it, for a shell in the folder ``prefix`` of the work tree."""
        module = self.module.removeprefix(prefix)
        path = self.path if module else self.path.removeprefix(prefix)
        git = f"git -C {shlex.quote(module.rstrip('/'))}" if module else "git"
        again = f"rm {shlex.quote(module + path)} && {git} checkout -- {shlex.quote(path)}"
        if not self.fix:
            return again
        return f"{git}{self.fix} && {again}" if self.fix[0] == " " else f"{self.fix}; {again}"


@dataclass(slots=True, kw_only=True)
class Compared:
    """How files differ from a commit, though git takes all of them for unchanged.

    Attributes:
        unknown: Files that the commit does not have: git looks for no new ones in submodules.
        differences: Files that it delivers otherwise.
    """

    unknown: set[str] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)


def compare(top: Path, commit: str, files: Mapping[str, Contents], *, module: str = "") -> Compared:
    """Compare files with those that a new clone would have, those of submodules included.

    Args:
        top: The work tree.
        commit: What is checked out there.
        files: What git takes for unchanged, by path.
        module: For a submodule, its folder, with ``/`` after it.

    Raises:
        GitError: Git fails, or one of the clone's filters.
    """
    compared = Compared()
    with _new_clone(top, commit, _repository_of(top) if module else {}) as clone:
        entries = clone.entries
        modules = [path for path, (mode, _) in entries.items() if mode == GITLINK]
        inside: dict[str, dict[str, Contents]] = {name: {} for name in modules}
        own = {}
        for path, contents in files.items():
            name = next((each for each in modules if path.startswith(f"{each}/")), None)
            if name is not None:
                inside[name][path.removeprefix(f"{name}/")] = contents
            elif path in entries:
                own[path] = contents
            else:
                compared.unknown.add(f"{module}{path}")
        compared.differences += _differences(clone, own, module)
    for name, contained in inside.items():
        if contained:
            _, head = entries[name]
            more = compare(top / name, head, contained, module=f"{module}{name}/")
            compared.unknown |= more.unknown
            compared.differences += more.differences
    return compared


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clone:
    """A clone of a commit without settings, that has no files until they are asked for.

    Attributes:
        top: The work tree of the clone that it is compared with.
        real: Git in that.
        plain: Git in this one.
        folder: Where it is.
        entries: Mode and object id of every file of the commit, by path.
        filters: The real clone's settings of filters, by filter: keys and values.
    """

    top: Path
    real: Program
    plain: Program
    folder: Path
    entries: Mapping[str, tuple[str, str]]
    filters: Mapping[str, Mapping[str, str]]

    def attributes(self, paths: Iterable[str]) -> Attributes:
        """Return the attributes that the commit itself gives to files."""
        if not any(path.endswith(".gitattributes") for path in self.entries):
            return {}
        asked = ("check-attr", "-z", "--stdin", "--cached", *_ATTRIBUTES)
        return _attributes(self.plain.run(*asked, stdin=paths, end="\0"))

    def deliver(self, paths: Sequence[str]) -> Path:
        """Have git write files as a new clone would get them; returns the folder they are in.

        Raises ``GitError`` also where a filter fails.
        """
        into = self.folder / "delivered"
        if not paths:
            return into
        # A filter of the clone's runs where git would run it, and sees its own repository.
        start = f"unset {' '.join((*_WITHOUT_SETTINGS, *_PLACES))}; cd {shlex.quote(str(self.top))}"
        options: list[str] = []
        for name, settings in self.filters.items():
            for key, value in settings.items() if name != _LFS else ():
                is_command = key.endswith((".smudge", ".process"))
                options += ["-c", f"{key}={start} && {value}" if is_command else f"{key}={value}"]
        checkout = ("checkout-index", "-q", "-z", "--stdin", f"--prefix={into}/")
        try:
            self.plain.run(*options, *checkout, stdin=paths, end="\0")
        except GitError as error:
            # The lines before the last one quote the filter as it is called here.
            last = error.message.splitlines()[-1]
            last = last.removeprefix("git -c failed: ")
            raise GitError(f"git cannot say what a new clone would have: {last}") from error
        return into

    def causes(self, own: Attributes) -> dict[str, tuple[str, str]]:
        """Return why the bytes of files differ, and what removes that, by path.

        ``own`` has the attributes that the commit gives to each of them.
        """
        asked = ("check-attr", "-z", "--stdin", *_ATTRIBUTES)
        real = _attributes(self.real.run(*asked, stdin=own, end="\0"))
        files = " or ".join(self._attributes_files()) or "a .gitattributes"
        setting = self._setting()
        causes = {}
        for path, its in own.items():
            here = real.get(path, {})
            names = (name for name in _ATTRIBUTES if here.get(name) != its.get(name))
            if name := next(names, None):
                value = here.get(name, _UNSPECIFIED)
                why = f"{files}, which is not the commit's, gives it the attribute {name} ({value})"
                causes[path] = (why, f"take that out of {files}")
            else:
                causes[path] = setting
        return causes

    def _setting(self) -> tuple[str, str]:
        """Return the setting that changes line endings, and what removes it."""
        for setting, value, other in (("autocrlf", "true", "false"), ("eol", "crlf", "lf")):
            if self.real.ask("config", f"core.{setting}") == value:
                why = f"core.{setting} is {value}, so that git changes its line ends"
                return why, f" config --replace-all core.{setting} {other}"
        return "it was written under other settings or attributes, or never checked out", ""

    def _attributes_files(self) -> Iterator[str]:
        """Yield the attributes files outside the commit that are there (gitattributes(5))."""
        info = self.real.run("rev-parse", "--git-path", "info/attributes").rstrip("\n")
        named = self.real.ask("config", "--type=path", "core.attributesFile")
        home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        for file in (info, named or f"{home}/git/attributes"):
            if (self.top / file).is_file():
                yield file


def _repository_of(module: Path) -> dict[str, str]:
    """Return where a submodule's repository is, for git.

    Who trusts a repository trusts its submodules, whoever owns them, as with ``git status``: git
    looks at ``safe.directory`` only where it has to find the repository by itself.
    """
    place = module / ".git"
    if place.is_file():
        place = module / place.read_text(errors="surrogateescape").partition(":")[2].strip()
    return {"GIT_DIR": str(place.resolve()), "GIT_WORK_TREE": str(module)}


@contextmanager
def _new_clone(top: Path, commit: str, place: Mapping[str, str]) -> Iterator[_Clone]:
    real = Program(top, place)
    asked = real.run("rev-parse", "--show-object-format", "--git-path", "objects")
    form, objects = asked.splitlines()
    with TemporaryDirectory(prefix="lago-images-") as name:
        folder = Path(name)
        # Nothing is in the work tree: attributes are read from the index, which is the commit's.
        (folder / "empty").mkdir()
        places = (folder / "git", folder / "empty", folder / "index", (top / objects).resolve())
        own = _WITHOUT_SETTINGS | dict(zip(_PLACES, map(str, places), strict=True))
        plain = Program(folder, own)
        plain.run("init", "-q", "--template=", f"--object-format={form}")
        # By the real clone, for which git fetches the folders that a partial one lacks.
        index = Program(top, {**place, "GIT_INDEX_FILE": own["GIT_INDEX_FILE"]})
        index.run("-c", "core.splitIndex=false", "-c", "index.sparse=false", "read-tree", commit)
        entries, _ = parse_index(plain.run("ls-files", "-s", "-v", "-z"))
        yield _Clone(
            top=top,
            real=real,
            plain=plain,
            folder=folder,
            entries=entries,
            filters=_filters(real),
        )


def _filters(real: Program) -> dict[str, dict[str, str]]:
    """Return the filters that a clone's settings name, by name: keys and values."""
    filters: dict[str, dict[str, str]] = {}
    for setting in (real.ask("config", "-z", "--get-regexp", r"^filter\.") or "").split("\0"):
        key, _, value = setting.partition("\n")
        if key:
            name = key.removeprefix("filter.").rpartition(".")[0]
            filters.setdefault(name, {})[key] = value
    return filters


def _attributes(listing: str) -> Attributes:
    """Read ``git check-attr -z``: path, attribute and value, again and again; keep what is set."""
    fields = listing.split("\0")[:-1]
    attributes: dict[str, dict[str, str]] = {}
    for path, name, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        if value != _UNSPECIFIED:
            attributes.setdefault(path, {})[name] = value
    return attributes


def _differences(clone: _Clone, files: Mapping[str, Contents], module: str) -> Iterator[Difference]:
    attributes = clone.attributes(files)
    converted = {path for path, own in attributes.items() if _is_converting(own)}
    filters = {path: attributes[path].get("filter", _UNSPECIFIED) for path in converted}
    lacking = {path for path, name in filters.items() if _is_lacking(name, clone)}
    delivered = clone.deliver(sorted(converted - lacking))
    others: dict[str, Mapping[str, str]] = {}
    for path, here in files.items():
        file = delivered / path if path in converted else None
        if path not in lacking and not _is_same(here, clone.entries[path][1], file):
            others[path] = attributes.get(path, {})
    causes = clone.causes(others) if others else {}
    for path, here in sorted(files.items()):
        mode, _ = clone.entries[path]
        if path in lacking:
            why = (
                f"the commit has it filtered by {filters[path]!a}, which this clone does not know "
                "(the command is cat, where the filter only cleans)"
            )
            fix = f" config filter.{filters[path]}.smudge COMMAND"
        elif mode != here.mode:
            why, fix = _OTHER_LINKS if LINK in {mode, here.mode} else _OTHER_MODE
        elif path in causes:
            why, fix = causes[path]
        else:
            continue
        yield Difference(module=module, path=path, why=why, fix=fix)


def _is_same(here: Contents, blob: str, delivered: Path | None) -> bool:
    if delivered is None:
        return here.blob == blob
    try:
        return here.sha256 == hash_file(delivered).sha256
    # A new clone would have it locked: git-crypt gives what it cannot unlock as it is.
    except ValueError:
        return False


def _is_converting(attributes: Mapping[str, str]) -> bool:
    return any(attributes.get(name, _UNSPECIFIED) not in _NO_VALUE for name in _CONVERTING)


def _is_lacking(name: str, clone: _Clone) -> bool:
    """Tell whether a filter is not known to the clone; another clone may know it."""
    return name not in _NO_FILTER and name not in clone.filters
