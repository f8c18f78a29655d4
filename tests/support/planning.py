"""Plans made of values, for tests that read nothing."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from lago_images.planning.git_output import Change, Commit
from lago_images.planning.history import (
    Ask,
    Built,
    Current,
    History,
    Holdings,
    ImageHoldings,
    Relation,
    Since,
)
from lago_images.planning.model import Plan, PlannedImage, Tree
from lago_images.planning.plan import make
from lago_images.repository.records.changes import Upstream
from lago_images.specs.model import BaseKind, Spec
from tests.support.builders import spec

__all__ = ["spec"]
DAY = 86_400
NOW = 1000 * DAY
OLD, HEAD = "a" * 40, "b" * 40


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tree(
    *specs: Spec,
    content: Mapping[str, str] | None = None,
    inputs: Mapping[str, tuple[str, ...]] | None = None,
    dirty: Iterable[str] = (),
) -> Tree:
    """Specs whose fingerprints follow ``content`` by name, and their bases'."""
    by_name = {one.name: one for one in specs}

    def fingerprint(name: str) -> str:
        one = by_name[name]
        layer = one.base.kind is BaseKind.LAYER
        below = fingerprint(one.base.name) if layer else ""
        return digest(f"{name} {(content or {}).get(name, '')} {below}")

    return Tree(
        specs=by_name,
        fingerprints={name: fingerprint(name) for name in by_name},
        inputs={name: (inputs or {}).get(name, ()) for name in by_name},
        dirty=frozenset(dirty),
    )


def build_of(made: Tree, name: str, number: int = 1, base: int = 1, created: int = NOW) -> Built:
    """Return build ``<name>-<number>`` of a spec, on build ``base`` of its base."""
    below = made.specs[name].base
    is_layer = below.kind is BaseKind.LAYER
    on = f"sha256:{digest(f'{below.name}-{base}')}" if is_layer else "sha256:0"
    return Built(
        build=f"{name}-{number}",
        fingerprint=made.fingerprints[name],
        commit=OLD,
        created=created,
        base=on,
        sha256=digest(f"{name}-{number}"),
        manifest_sha256=digest(f"manifest of {name}-{number}"),
    )


def released(built: Built, revision: int = 1, commit: str = OLD) -> Current:
    return Current(
        revision=revision,
        fingerprint=built.fingerprint,
        commit=commit,
        build=built.build,
        built=built,
        made_of=commit,
    )


def published(made: Tree, *names: str, created: int = NOW) -> dict[tuple[str, str], ImageHoldings]:
    """Revision 1 of each name (of all, if none is given), built from the tree as it is."""
    return {
        (name, made.specs[name].arch): ImageHoldings(
            current=released(build_of(made, name, created=created)), newest=1
        )
        for name in names or made.specs
    }


def since(*paths: str | Change, commit: str = OLD, subject: str = "Do it") -> Since:
    changes = [
        path if isinstance(path, Change) else Change(status="M", path=path) for path in paths
    ]
    behind = (Commit(short="1a2b3c4", subject=subject),)
    return Since.of(commit, changes, {change.path: behind for change in changes})


def history(
    *changed: str | Change, relation: Relation = Relation.OLDER, scope: Since | None = None
) -> History:
    return History(
        head=HEAD,
        relations={OLD: relation},
        since={OLD: since(*changed)},
        scope=scope,
    )


def plan(
    made: Tree,
    images: Mapping[Any, ImageHoldings] | None = None,
    known: History | None = None,
    *,
    commit: str | None = OLD,
    now: float = NOW,
    upstream: Mapping[str, Upstream] | None = None,
    **ask: Any,
) -> Plan:
    held = Holdings(images=images or {}, commit=commit if images is not None else None)
    return make(made, held, known or History(), Ask(**ask), now, upstream or {})


def image(made: Plan, name: str) -> PlannedImage:
    return next(one for one in made.images if one.name == name)


def actions(made: Plan) -> dict[str, str]:
    return {one.name: str(one.action) for one in made.images}


def why(made: Plan, name: str) -> list[tuple[str, str]]:
    return [(str(reason.kind), reason.detail) for reason in image(made, name).reasons]
