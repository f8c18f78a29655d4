"""Settings, from ``lago-images.toml`` and ``LAGO_IMAGES_*``.

A setting's name in the file has dashes (``base-url``), in the environment capitals
(``LAGO_IMAGES_BASE_URL``), and in code underscores. The environment wins over the file; a
command's options win over both.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from lago_images.addresses import SCHEME, file_path, is_plain_url, refusal
from lago_images.errors import Problem, SettingsError, UsageError
from lago_images.secret_text import NOT_A_KEY, is_key_alone, without_keys
from lago_images.specs import toml
from lago_images.specs.folder import SETTINGS
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why

FILE = SETTINGS
PREFIX = "LAGO_IMAGES_"
_LARGEST = 2**20
DEFAULT_REPOSITORY = "./image-repo"
# The forms that a disk can be published in beside the xz that the clients take.
FORMS = ("qcow2",)
# How an environment variable says that there shall be none.
NO_FORMS = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSource:
    """A virt-builder source: its index's URL, and the fingerprint of the key that signs it.

    ``key`` is a file with the public key, relative to the settings file's folder. A source without
    both, ``fingerprint`` and ``key``, must be unsigned.
    """

    url: str
    fingerprint: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold everything that can be set, with the default of each.

    Attributes:
        repository: ``s3://bucket/prefix``, ``file:///dir`` or a path.
        name: The repository's name, as lago and the catalogue show it; ``test`` where it is empty.
        base_url: The URL where clients find the repository. Where it is empty, a directory's is
            ``http://127.0.0.1:8181``, where ``serve`` listens; a bucket must have one.
        signing_key: ``file:PATH`` (or a bare path), ``env:VARIABLE`` or ``agent:FINGERPRINT``;
            several with commas between them while a key is changed.
        single_writer: Allow a store that does not support conditional writes, where nobody else
            writes at the same time.
        promote: Release what a pull request built, if nothing has changed since: of every branch of
            the repository, and never of a fork (``same-repository``), which believes everybody who
            may push; only what GitHub attests that the pinned workflow built (``attested``); or
            ``never``.
        branch: The branch that is published; empty for the CI's, else the remote's default. What a
            force-push took from it is built again.
        specs: The folder of the specs, inside the repository.
        jobs: How many chains are built side by side, as far as there is disk space for them.
        boot_timeout: Seconds a boot test may take with KVM; four times that without.
        require_kvm: Refuse to build without working KVM.
        network: True if commands in images, and tests that ask for it, may use the network, and
            template sources on the network are asked.
        compression_level: 0 to 9: about the size of xz's preset, or less.
        publish_also: The forms that each disk is published in beside the xz: ``qcow2``, a disk that
            is used as it is downloaded. A list in the file; with commas in the environment, where
            ``none`` takes back what the file says.
        engine: What a spec's commands run in: ``auto`` for namespaces where they are safe and mean
            the same, else the appliance; ``namespace`` or ``appliance`` for that alone.
        template_sources: For ``libguestfs:`` bases; none means virt-builder's own.
        keep_revisions: How many revisions of an image ``repo gc`` keeps at least; 1 means 2, so
            that there is one to go back to.
        keep_days: For how many days ``repo gc`` keeps every revision.
        grace_days: For how many days ``repo gc`` touches nothing that is new, and a build of a
            pull request may be released.
        folder: The settings file's folder, that paths are relative to; the file may be missing.
        origins: By name, the variable or option that set it; the others are the file's.
        lines: By name, the line of the file that sets it.
    """

    repository: str = DEFAULT_REPOSITORY
    name: str = ""
    base_url: str = ""
    signing_key: str = ""
    single_writer: bool = False
    promote: str = "same-repository"
    branch: str = ""
    specs: str = "image-specs"
    jobs: int = 1
    boot_timeout: int = 120
    require_kvm: bool = False
    network: bool = True
    compression_level: int = 6
    publish_also: tuple[str, ...] = ()
    engine: str = "auto"
    template_sources: tuple[TemplateSource, ...] = ()
    keep_revisions: int = 5
    keep_days: int = 30
    grace_days: int = 7
    folder: Path = field(default_factory=Path.cwd)
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @property
    def key_files(self) -> list[Path]:
        """Return the files that ``signing-key`` names; raises as ``expanded``."""
        references = [text.strip() for text in self.signing_key.split(",")]
        paths = [key_file(reference, self.folder) for reference in references if reference]
        return [path for path in paths if path]

    def problem(self, name: str, what: str) -> Problem:
        """Return a problem of a setting, at the line, variable or option that set it."""
        origin = self.origins.get(name, "")
        return Problem(origin or FILE, None if origin else self.lines.get(name), what)


def expanded(path: str) -> Path:
    """Return a path with the home folder that its ``~`` means.

    Raises:
        UsageError: There is no such user, or it has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        message = f"there is no home folder for the ~ of {path}"
        raise UsageError(message, hint="write the path from / on") from error


def key_file(reference: str, folder: Path) -> Path | None:
    """Return the file that a reference to a signing key means; None for another kind.

    Raises as ``expanded``.
    """
    scheme, colon, rest = reference.partition(":")
    if colon and scheme in {"env", "agent"}:
        return None
    return folder / expanded(rest if colon and scheme == "file" else reference)


def missing_specs(settings: Settings, root: Path) -> Problem | None:
    """Return that there is no such folder as the settings say of the specs; None by default."""
    is_set = "specs" in settings.lines or "specs" in settings.origins
    if not is_set or (root / settings.specs).exists():
        return None
    return settings.problem("specs", f"there is no folder {root / settings.specs}: make it")


def misplaced(settings: Settings, root: Path) -> Problem | None:
    """Return that the repository would be published among the specs, or over the checkout."""
    scheme = SCHEME.match(settings.repository)
    # What names no place is refused where it is opened.
    if refusal(settings.repository) or (scheme and scheme[1].lower() != "file"):
        return None
    try:
        path = Path(file_path(settings.repository)) if scheme else expanded(settings.repository)
    except UsageError as error:
        return settings.problem("repository", f"{error.message}: {error.hint}")
    place = (settings.folder / path).resolve()
    specs, top = (root / settings.specs).resolve(), root.resolve()
    if specs != top and place.is_relative_to(specs):
        what = f"lies in the folder of the specs, {specs}"
    elif top.is_relative_to(place) or specs.is_relative_to(place):
        what = f"is the folder of the checkout, {top}, or one above it or its specs"
    else:
        return None
    advice = f"name a folder of its own, as {DEFAULT_REPOSITORY}"
    return settings.problem("repository", f"the repository {place} {what}: {advice}")


CHOICES = {
    "promote": ("same-repository", "attested", "never"),
    "engine": ("auto", "namespace", "appliance"),
    "publish_also": FORMS,
}
AT_LEAST = {
    "jobs": 1,
    "boot_timeout": 1,
    "keep_revisions": 1,
    "keep_days": 0,
    "grace_days": 1,
    "compression_level": 0,
}
AT_MOST = {"compression_level": 9}
_MOST = 2**31 - 1
_DIGITS, _WIDEST = 18, 80
_KINDS: dict[str, type] = {
    f.name: type(f.default)
    for f in fields(Settings)
    if f.default is not MISSING and f.name != "template_sources"
}
_SOURCES = "template-sources"
# Variables that are no settings: of the workflows, the Jenkinsfile and ci/.
_OTHERS = frozenset(
    PREFIX + name
    for name in (
        *("VENV", "SIGNER", "PLAN_SHA256", "CHANGE_IS_OURS", "RUNNER", "RUNNERS", "PUBLISH"),
        *("BUILDER_ROLE", "PUBLISHER_ROLE", "GITHUB_CREDENTIALS"),
        *("SIGNING_CREDENTIALS", "NEXT_SIGNING_CREDENTIALS"),
    )
)
_TESTS = f"{PREFIX}TEST_"
_REFERENCE = re.compile(r"(?:file|env|agent):")
_SOURCE_KEYS = {f.name: f.name for f in fields(TemplateSource)}


def load(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the specs repository at ``folder``.

    Raises:
        SettingsError: With every problem of the file and of the environment.
    """
    problems: list[Problem] = []
    text = _text(folder)
    values = _from_file(text, problems)
    values |= _from_environment(environ, problems)
    if problems:
        raise SettingsError(problems)
    if "specs" in values:
        # Git names no path with empty or . parts, and paths of specs are looked up among its.
        values["specs"] = str(PurePosixPath(values["specs"]))
    if "publish_also" in values:
        # Each form has one key, which is written once.
        values["publish_also"] = tuple(dict.fromkeys(values["publish_also"]))
    variables = {name: PREFIX + name.upper() for name in _KINDS}
    origins = {name: variable for name, variable in variables.items() if environ.get(variable)}
    known = [each for each in toml.statements(text) if each.table is None]
    lines = {each.name.replace("-", "_"): each.line for each in known}
    return replace(Settings(folder=folder, origins=origins, lines=lines), **values)


def unknown_variables(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is to be said of variables that look like settings, and are none."""
    known = {PREFIX + name.upper() for name in _KINDS}
    references = settings.signing_key.replace(",", " ").split()
    named = {*known, *_OTHERS, *(text.removeprefix("env:") for text in references)}
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(_TESTS) and name not in named:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield f"the variable {name} is no setting, and counts for nothing{meant}"


def _from_file(text: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        plain = toml.parse(text)
    except toml.TomlError as error:
        raise SettingsError([Problem(FILE, error.line, error.message)]) from error
    known = toml.statements(text)

    def complain(key: str, message: str) -> None:
        problems.append(Problem(FILE, toml.line_of(known, key), message))

    values: dict[str, Any] = {}
    for key, value in plain.items():
        name = key.replace("-", "_")
        if key == _SOURCES:
            values[name], wrong = _sources(value, known)
            problems += wrong
        elif _is_setting(key):
            # TOML has lists, which may be changed.
            fixed = tuple(value) if isinstance(value, list) else value
            if _fits(name, key, fixed, complain):
                values[name] = fixed
        else:
            complain(key, _unknown(key, [*_KINDS, "template_sources"]))
            problems += (
                Problem(FILE, each.line, _misplaced(each.name, each.table))
                for each in known
                if each.table and each.table.name == key and _is_setting(each.name)
            )
    return values


def _text(folder: Path) -> str:
    """Read the file, empty where there is none: messages quote it, so it is the folder's own."""
    try:
        return HostFolder(folder).read(FILE, most=_LARGEST).decode()
    except FileNotFoundError:
        if not (folder / FILE).is_symlink():
            return ""
        message = "the link leads to nothing"
    except OSError as error:
        message = f"cannot be read: {why(error)}"
    except UnicodeDecodeError:
        message = "not UTF-8, as TOML must be"
    except ForbiddenPathError as error:
        message = f"{'the link ' if (folder / FILE).is_symlink() else ''}{error}"
    raise SettingsError([Problem(FILE, None, message)])


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        variable = PREFIX + name.upper()
        text = environ.get(variable, "")
        # A workflow hands on a variable that nobody has set as an empty one.
        if not text:
            continue

        def complain(_key: str, message: str, variable: str = variable) -> None:
            problems.append(Problem(variable, None, message.removeprefix(f"{variable} ")))

        value = _from_text(text, kind)
        if _fits(name, variable, value, complain):
            values[name] = value
    return values


def _from_text(text: str, kind: type) -> object:
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind is int:
        # Not isdigit, which lets a superscript pass that int refuses.
        return int(text) if text.isdecimal() and len(text) <= _DIGITS else text
    if kind is tuple:
        # An empty variable is one that nobody has set.
        return () if text == NO_FORMS else tuple(re.split(r"[,\s]+", text.strip(", ")))
    return text


def _fits(name: str, key: str, value: object, complain: Callable[[str, str], None]) -> bool:
    kind = _KINDS[name]
    shown = {bool: "true or false", int: "a whole number", str: "a string", tuple: "a list"}[kind]
    if isinstance(value, str) and _is_key(value):
        complain(key, NOT_A_KEY if name == "signing_key" else "this looks like a secret key")
    # Not isinstance: in Python True is an int, and `jobs = true` is not 1.
    elif type(value) is not kind:
        complain(key, f"{key} must be {shown}, not {_shortened(value)}")
    elif isinstance(value, tuple):
        return _are_choices(value, CHOICES[name], key, complain)
    elif name in CHOICES and value not in CHOICES[name]:
        complain(key, f"{key} must be one of {', '.join(CHOICES[name])}, not {_shortened(value)}")
    elif isinstance(value, int) and value > AT_MOST.get(name, _MOST):
        most = AT_MOST.get(name, _MOST)
        complain(key, f"{key} must be at most {most}" + (f", not {value}" if value < _MOST else ""))
    elif isinstance(value, int) and value < (least := AT_LEAST.get(name, 0)):
        complain(
            key, f"{key} must be at least {least}" + (f", not {value}" if value > -_MOST else "")
        )
    elif name == "repository" and (refused := refusal(str(value))):
        complain(key, f"{refused.what}; {refused.hint}")
    elif name == "base_url" and value and not is_plain_url(str(value).rstrip("/")):
        complain(key, f"{key} must be an http, https or file URL, not {_shortened(value)}")
    elif name == "specs" and not _is_below(str(value)):
        complain(key, f"{key} must be a folder inside the repository, not {value!r}")
    else:
        return True
    return False


def _is_key(text: str) -> bool:
    """Return whether a key stands where one may be named, also behind the kind of a name."""
    return any(is_key_alone(_REFERENCE.sub("", part.strip())) for part in text.split(","))


def _are_choices(
    values: tuple[object, ...],
    choices: tuple[str, ...],
    key: str,
    complain: Callable[[str, str], None],
) -> bool:
    others = [value for value in values if value not in choices]
    for other in others:
        complain(key, f"{key} may list {', '.join(choices)}, not {_shortened(other)}")
    return not others


def _shortened(value: object) -> str:
    # Python refuses to write an int of thousands of digits in decimal (sys.set_int_max_str_digits).
    text = f"0x{value:x}" if isinstance(value, int) and abs(value) > _MOST else repr(value)
    # What is cut off a key or a URL's login may be what tells of it.
    text = without_keys(text)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _sources(
    value: object, known: Sequence[toml.Statement]
) -> tuple[tuple[TemplateSource, ...], Iterator[Problem]]:
    """Return the sources that a file says, and what is wrong with them."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        message = f"{_SOURCES} must be an array of tables: [[{_SOURCES}]]"
        return (), iter([Problem(FILE, toml.line_of(known, _SOURCES), message)])
    # Written as a list of inline tables they have no headers.
    tables = [*toml.tables_of(known, _SOURCES), *[None] * len(value)]
    pairs = list(zip(value, tables, strict=False))
    sources = tuple(TemplateSource(**entry) for entry in value if not any(_wrong_in(entry, None)))
    problems = (
        Problem(FILE, toml.line_of(known, _SOURCES, key, table), message)
        for entry, table in pairs
        for key, message in _wrong_in(entry, table)
    )
    return sources, problems


def _wrong_in(
    entry: Mapping[str, object], table: toml.Statement | None
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a source, each with the key where that is."""
    for name, text in entry.items():
        if _is_setting(name) and table:
            yield name, _misplaced(name, table)
        elif name not in _SOURCE_KEYS:
            yield name, _unknown(name, list(_SOURCE_KEYS))
        elif not isinstance(text, str):
            yield name, f"{name} must be a string, not {_shortened(text)}"
        elif name == "key" and not _is_below(text):
            yield name, f"{name} must be a file inside the repository, not {_shortened(text)}"
        elif name == "url" and not text.startswith(("http://", "https://")):
            yield name, f"{name} must be an http or https URL, not {_shortened(text)}"
    if "url" not in entry:
        yield "", f"a table of {_SOURCES} has no url"


def _is_setting(key: str) -> bool:
    return key.replace("-", "_") in _KINDS and "_" not in key


def _misplaced(key: str, table: toml.Statement) -> str:
    """Return that a setting stands in a table, as one does that was added to the file's end."""
    return f"{key} stands in the table {table} of line {table.line}; move it above that line"


def _is_below(path: str) -> bool:
    """Return whether a path starts at the settings file's folder and does not leave it."""
    parts = path.split("/")
    return not path.startswith(("/", "~")) and not {"..", ".git"} & set(parts)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, [name.replace("_", "-") for name in known], n=1)
    return f"unknown setting {_shortened(key)}" + (f"; did you mean {near[0]!r}?" if near else "")
