"""Read documents that others wrote: a valid value, or one error that lists all that is wrong.

A document's class is a frozen dataclass, whose annotations say what its fields must be.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from reprlib import Repr
from threading import Lock
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from lago_images.errors import RepositoryError
from lago_images.storage.base import Stat

# Bytes. Ours have a few thousand; larger ones are not even read.
LARGEST = 4 << 20
_SHOWN = 100
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2
_CONVERTING = Lock()


def matching(pattern: str, description: str) -> Meta:
    """Make the constraint that a whole text matches ``pattern``."""
    # `$` alone lets a final line end pass in Python; JSON Schema has no `\Z`.
    return Meta(pattern=rf"^(?:{pattern})$(?!\n)", description=description)


# A lone surrogate is text to JSON, and cannot be written.
Text = Annotated[str, matching(r"[^\ud800-\udfff]*", "text that UTF-8 can say")]
# Within 63 bits, as virt-builder reads its numbers.
Count = Annotated[int, Meta(ge=0, lt=2**62, description="a whole number, 0 or more")]
Positive = Annotated[int, Meta(ge=1, lt=2**62, description="a whole number, 1 or more")]
# Longer than any job may take. Python reads Infinity and NaN from JSON: these are out of bounds.
Seconds = Annotated[float, Meta(ge=0, lt=2**31, description="a number of seconds")]


class Document(Protocol):
    """Describe a class of documents: the schema they must state, and what to call one."""

    SCHEMA: ClassVar[int]
    WHAT: ClassVar[str]


_T = TypeVar("_T", bound=Document)


class DocumentError(RepositoryError):
    """Raised for a document that is not what it must be; ``problems`` are all the reasons."""

    def __init__(self, where: str, kind: str, problems: Sequence[str]) -> None:
        super().__init__(f"{where} is not {kind}: {'; '.join(problems)}")
        self.problems = tuple(problems)


class SchemaError(RepositoryError):
    """Raised for a document of a schema that only a newer version knows."""


def parse_json(data: bytes, failure: str, largest: int | None = None) -> Any:  # noqa: ANN401 -- JSON
    """Read JSON in UTF-8, in which no key stands twice.

    Raises ``RepositoryError``, which begins with ``failure``, for anything else, and for more than
    ``largest`` bytes.
    """
    if largest is not None and len(data) > largest:
        raise RepositoryError(f"{failure}: {_too_large(len(data))}")
    try:
        # Not json.loads, which would read bytes of UTF-16 and UTF-32, too.
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{failure}: not JSON: it is no text") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RepositoryError(f"{failure}: not JSON: {place}") from error
    # A number of more digits than Python converts, a key twice, or brackets nested too deep.
    except (ValueError, RecursionError) as error:
        raise RepositoryError(f"{failure}: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal keys counts.
    plain = dict(pairs)
    if len(plain) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has {_shown(twice)} twice")
    return plain


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def parse(data: bytes, kind: type[_T], where: str, *, strict: bool = True) -> _T:
    """Read a document of a class; raises as ``parse_json`` and ``from_plain`` do."""
    return from_plain(parse_json(data, f"{where} is not {kind.WHAT}"), kind, where, strict=strict)


def from_plain(plain: object, kind: type[_T], where: str, *, strict: bool = True) -> _T:
    """Make a document of what ``parse_json`` returned.

    Args:
        plain: The document.
        kind: Its class.
        where: Where it was read; the message begins with it.
        strict: Whether keys that the class does not know are refused.

    Raises:
        DocumentError: It is none; every field that is wrong, missing or unknown is listed.
        SchemaError: It has the schema of a newer version.
        RepositoryError: It has a schema that no version knows.
    """
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema is None:
        raise DocumentError(where, kind.WHAT, ["it has no schema"])
    # In Python True is 1, and an int.
    if type(schema) is not int or schema != kind.SCHEMA:
        is_newer = type(schema) is int and schema > kind.SCHEMA
        error = SchemaError if is_newer else RepositoryError
        raise error(
            f"{where} is {kind.WHAT} of schema {_shown(schema)}; "
            f"this lago-images knows {kind.SCHEMA}",
            hint="upgrade lago-images",
        )
    strangers = list(_strangers(plain, kind, "")) if strict else []
    try:
        value = _convert(plain, kind)
    # msgspec names the first problem only, and overflows where a number has more than 64 bits.
    except (msgspec.ValidationError, OverflowError) as error:
        problems = [*_misfits(plain, kind, ""), *strangers]
        raise DocumentError(where, kind.WHAT, problems) from error
    if strangers:
        raise DocumentError(where, kind.WHAT, strangers)
    return value


def _convert(plain: object, kind: type[_T]) -> _T:
    # Python crashes where two threads have msgspec 0.22 see a class for the first time.
    with _CONVERTING:
        return msgspec.convert(plain, kind)


def size_problem(stat: Stat) -> str:
    """Return why an object is too large to be read as a document; empty when it is not."""
    return "" if stat.size <= LARGEST else _too_large(stat.size)


def _too_large(size: int) -> str:
    return f"it has {size} bytes, more than the {LARGEST} that are read"


@cache
def _members(kind: type) -> dict[str, Any]:
    """Return the annotation of each field of a document's class."""
    hints = get_type_hints(kind, include_extras=True)
    own = {"schema": int} if hasattr(kind, "SCHEMA") else {}
    return own | {field.name: hints[field.name] for field in fields(kind)}


@cache
def _nested(kind: type) -> dict[str, type]:
    """Return the fields that hold documents, or lists of them, with their class."""
    inner = {name: _required(hint) for name, hint in _members(kind).items()}
    items = {n: get_args(h)[0] if get_origin(h) is tuple else h for n, h in inner.items()}
    return {name: each for name, each in items.items() if _is_class(each)}


def _is_class(hint: object) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _required(hint: Any) -> Any:  # noqa: ANN401 -- an annotation
    """Return an annotation without ``| None``."""
    # Python 3.11: `int | None` is a UnionType, and with an Annotated in it a Union.
    is_union = get_origin(hint) in {Union, UnionType}
    return next(each for each in get_args(hint) if each is not NoneType) if is_union else hint


def _strangers(plain: Any, kind: type, path: str) -> Iterator[str]:  # noqa: ANN401 -- JSON
    """Yield each key that the class of its object does not know, and each schema."""
    if isinstance(plain, list):
        for number, each in enumerate(plain):
            yield from _strangers(each, kind, f"{path}[{number}]")
    elif isinstance(plain, dict):
        if unknown := plain.keys() - _members(kind).keys():
            yield f"{path or 'it'} has unknown keys: {_shown(sorted(unknown))}"
        schema = getattr(kind, "SCHEMA", None)
        if plain.get("schema") != schema:
            yield f"{_joined(path, 'schema')} is {_shown(plain.get('schema'))}, not {schema}"
        for name, inner in _nested(kind).items():
            yield from _strangers(plain.get(name), inner, _joined(path, name))


def _misfits(plain: Any, hint: Any, path: str) -> Iterator[str]:  # noqa: ANN401 -- JSON
    """Yield each field that is missing or is not as its annotation says."""
    kind = _required(hint)
    if isinstance(plain, list) and get_origin(kind) is tuple:
        for number, each in enumerate(plain):
            yield from _misfits(each, get_args(kind)[0], f"{path}[{number}]")
    elif isinstance(plain, dict) and _is_class(kind):
        must = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
        if missing := [name for name in must if name not in plain]:
            yield f"{path or 'it'} has no {', '.join(missing)}"
        for name, inner in _members(kind).items():
            if name in plain:
                yield from _misfits(plain[name], inner, _joined(path, name))
    else:
        try:
            _convert(plain, hint)
        except (msgspec.ValidationError, OverflowError) as error:
            yield f"{path or 'it'} is {_shown(plain)}, {_reason(hint, str(error))}"


def _reason(hint: Any, error: str) -> str:  # noqa: ANN401 -- an annotation
    kind = _required(hint)
    described = [meta.description for meta in getattr(kind, "__metadata__", ())]
    or_null = "" if kind is hint else ", nor null"
    return f"not {described[0]}{or_null}" if described else error[:1].lower() + error[1:]


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: object) -> str:
    """Return a value as a message may hold it, however long or deep it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
