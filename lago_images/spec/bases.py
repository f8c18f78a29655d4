"""The value of a ``base=`` property."""

from functools import lru_cache

from lago_images.spec.model import Base, BaseKind
from lago_images.spec.names import BOOTSTRAP_RELEASES, NAME, shown, suggestion
from lago_images.spec.properties import is_url

_KINDS = tuple(kind.value for kind in BaseKind)


@lru_cache(maxsize=1024)
def read_base(text: str, line: int) -> tuple[Base | None, str | None]:
    """The base that a property's value names, if it can be told, and what is wrong with it."""
    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = BaseKind.LAYER, text
    elif kind in {"http", "https", "file"}:
        return None, "a disk at a URL is written base=simple:URL"
    elif kind not in _KINDS:
        near = suggestion(kind, _KINDS)
        return None, f"unknown kind of base {shown(kind)}, not one of {', '.join(_KINDS)}{near}"
    base = Base(kind=BaseKind(kind), name=name, line=line)
    return base, _base_problem(base)


def _base_problem(base: Base) -> str | None:
    name = base.name
    if not name:
        return f"{base.kind}: has no name after the colon"
    if base.kind is BaseKind.BOOTSTRAP and name not in BOOTSTRAP_RELEASES:
        known = ", ".join(BOOTSTRAP_RELEASES)
        near = suggestion(name, BOOTSTRAP_RELEASES)
        return f"bootstrap: knows {known}, not {shown(name)}{near}"
    if base.kind is BaseKind.SIMPLE:
        if "://" in name and not is_url(name):
            # Not shown: it may hold a password.
            return "simple: takes an http or https URL without a password, or a path"
        return None
    if not NAME.fullmatch(name):
        return f"{shown(name)} cannot be the name of a template or spec"
    return None
