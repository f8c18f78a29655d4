"""Write a plan as a document: JSON for machines, rows for people, the fan-outs of the two CIs.

``docs/plan.md`` describes the forms for those who script against them.
"""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lago_images.console import clean, counted, whole
from lago_images.errors import RepositoryError, UsageError
from lago_images.planning.model import Action, Plan, PlannedImage
from lago_images.repository.records.parsing import DocumentError, parse

# GitHub starts at most 256 jobs from one matrix
# (https://docs.github.com/actions/reference/limits).
MOST_JOBS = 256


def to_json(plan: Plan) -> str:
    """Return the plan as JSON, a line for each image and chain; ``from_json`` reads it back."""
    fields = {
        "schema": json.dumps(Plan.SCHEMA),
        "head": json.dumps(plan.head),
        "dirty": json.dumps(plan.dirty),
        "published": json.dumps(plan.published),
        "made": json.dumps(plan.made),
        "partial": json.dumps(plan.partial),
        "images": _lines([_plain(image) for image in plan.images]),
        "chains": _lines(plan.chains),
    }
    return "{" + ",\n".join(f'"{key}": {value}' for key, value in fields.items()) + "}\n"


def _lines(values: Sequence[object]) -> str:
    return "[" + ",\n".join(map(json.dumps, values)) + "]"


def _plain(image: PlannedImage) -> dict[str, Any]:
    plain = {name: getattr(image, name) for name in PlannedImage.__dataclass_fields__}
    plain["reasons"] = [{"kind": r.kind, "detail": whole(r.detail)} for r in image.reasons]
    plain["note"] = whole(image.note)
    return plain


def from_json(text: str | bytes, where: str) -> Plan:
    """Return the plan that a document holds.

    Raises ``UsageError`` naming ``where`` if it is no plan, or one of another schema.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        plan = parse(data, Plan, where)
        names = _architectures(plan).keys()
        chained = Counter(name for chain in plan.chains for name in chain)
        if not all(plan.chains):
            raise DocumentError(where, Plan.WHAT, ["a chain is empty"])
        if twice := sorted(name for name, count in chained.items() if count > 1):
            raise DocumentError(where, Plan.WHAT, [f"chains name {twice[0]!r} more than once"])
        if strangers := sorted(chained.keys() - names):
            problem = f"a chain names {strangers[0]!r}, which is no image of the plan"
            raise DocumentError(where, Plan.WHAT, [problem])
    except RepositoryError as error:
        hint = f"make it with this very version: lago-images ci plan --format json > {where}"
        raise UsageError(error.message, hint=hint) from error
    return plan


def rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """Return image, architecture, action and reason: a row for each image and further reason."""
    table = []
    for image in plan.images:
        reasons = [f"{reason.kind}: {reason.detail}" for reason in image.reasons]
        first, *more = map(clean, reasons or [image.note])
        table.append((image.name, image.arch, str(image.action), first))
        table += [("", "", "", text) for text in more]
    return table


def summary(plan: Plan) -> str:
    """Return one line: ``2 to build in 1 chain, 0 to promote, 3 kept, 0 retired``."""
    count = Counter(image.action for image in plan.images)
    chains = counted(len(plan.chains), "chain")
    line = (
        f"{count[Action.BUILD]} to build in {chains}, {count[Action.PROMOTE]} to promote, "
        f"{count[Action.KEEP]} kept, {count[Action.RETIRE]} retired"
    )
    return line if plan.images else f"no images: {line}"


def entries(plan: Plan, most: int | None = None) -> list[dict[str, str]]:
    """Return the fan-out, an entry for each chain, or ``most`` entries that share the chains.

    ``chain`` is the first name and how many chains more; ``batch``, as ``3/256``, is what
    ``batch`` finds the names by: all of them would be too much for GitHub. ``arch`` is that of all
    its images, for a runner of that architecture.
    """
    hands, archs = _dealt(plan, most or len(plan.chains)), _architectures(plan)
    return [
        {
            "chain": f"{hand[0][0]} and {len(hand) - 1} more" if hand[1:] else hand[0][0],
            "batch": f"{number}/{len(hands)}",
            "arch": archs[hand[0][0]],
        }
        for number, hand in enumerate(hands, 1)
    ]


def batch(plan: Plan, number: int, count: int) -> tuple[str, ...]:
    """Return the names of one entry of a fan-out that has ``count``, each base before its layers.

    Raises ``UsageError`` if the plan has no such entry.
    """
    hands = _dealt(plan, count)
    if not 1 <= number <= count == len(hands):
        raise UsageError(
            f"there is no batch {number}/{count} in the plan, which has {len(plan.chains)} chains",
            hint="use the plan that the fan-out was made with",
        )
    return tuple(name for chain in hands[number - 1] for name in chain)


def _dealt(plan: Plan, most: int) -> Sequence[Sequence[tuple[str, ...]]]:
    """Deal the chains to at most ``most`` hands, long ones first, so that hands are as long.

    A hand has chains of one architecture, so that there is one for each at least.
    """
    if len(plan.chains) <= most:
        return [[chain] for chain in plan.chains]
    archs = _architectures(plan)
    longest: dict[str, list[tuple[str, ...]]] = {}
    for chain in sorted(plan.chains, key=lambda chain: (-len(chain), chain)):
        longest.setdefault(archs[chain[0]], []).append(chain)
    shares = dict.fromkeys(longest, 1)
    while sum(shares.values()) < most:
        shares[max(shares, key=lambda arch: len(longest[arch]) / shares[arch])] += 1
    return [longest[arch][start::share] for arch, share in shares.items() for start in range(share)]


def _architectures(plan: Plan) -> Mapping[str, str]:
    """Return each spec's architecture; all of a chain have the same."""
    # What is retired may have a spec's name, and the architecture that it had before.
    images = (image for image in plan.images if image.action is not Action.RETIRE)
    return {image.name: image.arch for image in images}


def to_github(plan: Plan) -> str:
    """Return lines for ``$GITHUB_OUTPUT``: the fan-out, counts, and the digest of the JSON.

    JSON has no line ends of its own, and names are the index's: nothing can add an output.
    """
    include = entries(plan, MOST_JOBS)
    promoted = sum(image.action is Action.PROMOTE for image in plan.images)
    outputs = {
        "matrix": json.dumps({"include": include}),
        "count": len(include),
        "promote": promoted,
        "work": json.dumps(bool(include or promoted)),
        "plan-sha256": hashlib.sha256(to_json(plan).encode()).hexdigest(),
    }
    return "".join(f"{key}={value}\n" for key, value in outputs.items())


def to_jenkins(plan: Plan) -> str:
    """Return a JSON list with an entry for each chain."""
    return json.dumps(entries(plan)) + "\n"


def load(path: Path, sha256: str | None = None) -> Plan:
    """Read the plan in a file.

    Args:
        path: The file.
        sha256: What its bytes must have, as the job that made it said; None to take any.

    Raises:
        UsageError: It cannot be read, is no plan, or is another than ``sha256`` names.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the plan {path}: {error.strerror}",
            hint=f"make one: lago-images ci plan --output {shlex.quote(str(path))}",
        ) from error
    digest = hashlib.sha256(text).hexdigest()
    if sha256 is not None and digest != sha256:
        raise UsageError(
            f"{path} is not the plan that was made: its SHA-256 is {digest}, not {sha256}",
            hint="somebody changed it on its way, or it is another run's: run it all again",
        )
    return from_json(text, str(path))
