"""Settings, from ``lago-images.toml`` and ``LAGO_IMAGES_*``.

A setting's name in the file has dashes (``base-url``), in the environment capitals
(``LAGO_IMAGES_BASE_URL``), and in code underscores. The environment wins over the file; a
command's options win over both.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from lago_images.errors import Problem, SettingsError
from lago_images.specs.host_files import ForbiddenPathError, HostFolder, why

FILE = "lago-images.toml"
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

    Without a fingerprint the source must be unsigned. ``key`` is a file with the public key,
    relative to the settings file's folder.
    """

    url: str
    fingerprint: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold everything that can be set, with the default of each.

    Attributes:
        repository: ``s3://bucket/prefix``, ``file:///dir`` or a path.
        name: The repository's name, as lago and the catalogue show it.
        base_url: The URL where clients find the repository; empty when that is not known.
        signing_key: ``file:PATH`` (or a bare path), ``env:VARIABLE`` or ``agent:FINGERPRINT``.
        single_writer: Allow a store that does not support conditional writes.
        promote: Release what a pull request built (``same-repository``), only what GitHub attests
            that the pinned workflow built (``attested``), or ``never``.
        branch: The branch that is published; empty for the CI's, else the remote's default.
        specs: The folder of the specs, without empty and ``.`` parts.
        jobs: How many chains are built side by side.
        boot_timeout: Seconds a boot test may take with KVM; four times that without.
        require_kvm: Refuse to build without working KVM.
        network: True if commands in images, and tests that ask for it, may use the network, and
            template sources are asked.
        compression_level: 0 to 9: about the size of xz's preset, or less.
        publish_also: The forms that each disk is published in beside the xz: ``qcow2``, a disk that
            is used as it is downloaded. A list in the file; with commas in the environment.
        engine: What a spec's commands run in: ``auto`` for namespaces where they are safe and mean
            the same, else the appliance; ``namespace`` or ``appliance`` for that alone.
        template_sources: For ``libguestfs:`` bases; none means virt-builder's own.
        keep_revisions: How many revisions of an image ``repo gc`` keeps at least.
        keep_days: For how many days ``repo gc`` keeps every revision.
        grace_days: For how many days ``repo gc`` touches nothing that is new.
        folder: The settings file's folder, that paths are relative to; the file may be missing.
        origins: By name, the variable or option that set it; the others are the file's.
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


_AT_LINE = re.compile(r"\bat line (\d+)")
_CHOICES = {
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
_SOURCE_KEYS = {f.name: f.name for f in fields(TemplateSource)}


def load(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the specs repository at ``folder``.

    Raises:
        SettingsError: With every problem of the file and of the environment.
    """
    problems: list[Problem] = []
    values = _from_file(_text(folder), problems)
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
    return replace(Settings(folder=folder, origins=origins), **values)


def _from_file(text: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        plain = tomllib.loads(text)
    except RecursionError as error:
        raise SettingsError([Problem(FILE, None, "not TOML: nested too deeply")]) from error
    except ValueError as error:
        # tomllib has the place in its message only: "… (at line 1, column 8)". A number of
        # thousands of digits is a ValueError of int's, without a place.
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at else None
        message = error if at else "a number has too many digits"
        raise SettingsError([Problem(FILE, line, f"not TOML: {message}")]) from error

    def complain(key: str, message: str) -> None:
        problems.append(Problem(FILE, _line_of(text, key), message))

    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key == "template-sources":
            values["template_sources"] = _sources(value, complain)
        elif (name := key.replace("-", "_")) in _KINDS and "_" not in key:
            # TOML has lists, which may be changed.
            fixed = tuple(value) if isinstance(value, list) else value
            if _fits(name, key, fixed, complain):
                values[name] = fixed
        else:
            complain(key, _unknown(key, [*_KINDS, "template_sources"]))
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
    # Not isinstance: in Python True is an int, and `jobs = true` is not 1.
    if type(value) is not kind:
        complain(key, f"{key} must be {shown}, not {_shortened(value)}")
    elif isinstance(value, tuple):
        return _are_choices(value, _CHOICES[name], key, complain)
    elif name in _CHOICES and value not in _CHOICES[name]:
        complain(key, f"{key} must be one of {', '.join(_CHOICES[name])}, not {_shortened(value)}")
    elif isinstance(value, int) and value > AT_MOST.get(name, _MOST):
        most = AT_MOST.get(name, _MOST)
        complain(key, f"{key} must be at most {most}" + (f", not {value}" if value < _MOST else ""))
    elif isinstance(value, int) and value < (least := AT_LEAST.get(name, 0)):
        complain(
            key, f"{key} must be at least {least}" + (f", not {value}" if value > -_MOST else "")
        )
    elif name == "specs" and not _is_below(str(value)):
        complain(key, f"{key} must be a folder inside the repository, not {value!r}")
    else:
        return True
    return False


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
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _sources(value: object, complain: Callable[[str, str], None]) -> tuple[TemplateSource, ...]:
    key = "template-sources"
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        complain(key, f"{key} must be an array of tables: [[{key}]]")
        return ()
    sources = []
    for entry in value:
        for name, text in entry.items():
            if name not in _SOURCE_KEYS:
                complain(name, _unknown(name, list(_SOURCE_KEYS)))
            elif not isinstance(text, str):
                complain(name, f"{name} must be a string, not {_shortened(text)}")
            elif name == "key" and not _is_below(text):
                complain(
                    name, f"{name} must be a file inside the repository, not {_shortened(text)}"
                )
            elif name == "url" and not text.startswith(("http://", "https://")):
                complain(name, f"{name} must be an http or https URL, not {_shortened(text)}")
        if "url" not in entry:
            complain(key, f"a table of {key} has no url")
        elif set(entry) <= set(_SOURCE_KEYS) and all(isinstance(v, str) for v in entry.values()):
            sources.append(TemplateSource(**entry))
    return tuple(sources)


def _is_below(path: str) -> bool:
    """Return whether a path starts at the settings file's folder and does not leave it."""
    parts = path.split("/")
    return not path.startswith(("/", "~")) and not {"..", ".git"} & set(parts)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, [name.replace("_", "-") for name in known], n=1)
    return f"unknown setting {_shortened(key)}" + (f"; did you mean {near[0]!r}?" if near else "")


def _line_of(text: str, key: str) -> int | None:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().strip("[]").split("=")[0].strip().strip("\"'") == key:
            return number
    return None
