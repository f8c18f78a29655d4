"""Choose images by name or pattern, and help who gave a name that is none."""

import difflib
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from itertools import takewhile

from lago_images.console import first_of
from lago_images.errors import UsageError

_NEAR = 0.6
# As many names as a question asks for, and as many unknown ones as a message has.
_FEW = 3
# Characters that say something of a name.
_SHORTEST_PART = 2
_MAGIC = re.compile(r"[*?\[\]]")


def is_pattern(text: str) -> bool:
    """Return whether a text is a pattern, as shells have them, and so no name."""
    return _MAGIC.search(text) is not None


def matching(pattern: str, known: Collection[str]) -> list[str]:
    """Return the known names that a pattern matches, sorted, or the one that it is."""
    if not is_pattern(pattern):
        return [pattern] if pattern in known else []
    return sorted(name for name in known if fnmatchcase(name, pattern))


def chosen(
    patterns: Iterable[str], known: Collection[str], *, otherwise: str, where: str = ""
) -> list[str]:
    """Return the specs that names and patterns mean, each once, in their order.

    Args:
        patterns: Names, or patterns as shells have them.
        known: The names of the specs.
        otherwise: What to do where no known name is like an unknown one.
        where: Where the specs were looked for, for the message.

    Raises:
        UsageError: A name is unknown, or a pattern matches none.
    """
    found = {each: matching(each, known) for each in patterns}
    unknown = [each for each, names in found.items() if not names]
    if unknown:
        raise UsageError(
            " and ".join(_complaints(unknown, where)), hint=_hints(unknown, known, otherwise)
        )
    return list(dict.fromkeys(name for names in found.values() for name in names))


def did_you_mean(name: str, known: Collection[str], otherwise: str = "") -> str:
    """Return which known names an unknown one may stand for; ``otherwise`` where none is like it.

    Of many that are equally near it names none as the one, and tells what they have in common.
    """
    near = _nearest(_MAGIC.sub("", name), known)
    if not near:
        return otherwise
    if len(near) <= _FEW:
        *others, last = map(repr, near)
        return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    common, family = "names are as near", near
    # Sorted, so what the first and the last have in common, all have.
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(near[0], near[-1], strict=False))
    prefix = "".join(pair[0] for pair in pairs)
    if len(prefix) >= _SHORTEST_PART:
        common = f"names begin with {prefix!r}"
        family = sorted(each for each in known if each.startswith(prefix))
    listed = f"{len(family)} {common}: {', '.join(family[:2])}, … {family[-1]}"
    return f"{listed}; {otherwise}" if otherwise else listed


def _nearest(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that come nearest to one, sorted: all that are equally near."""
    plain = _plain(name)
    if same := sorted(each for each in known if _plain(each) == plain):
        return same
    matcher, scores = difflib.SequenceMatcher(b=name), dict[str, float]()
    for each in known:
        matcher.set_seq1(each)
        if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= _NEAR:
            scores[each] = matcher.ratio()
    best = max(scores.values(), default=0.0)
    if best >= _NEAR:
        return sorted(each for each, score in scores.items() if score == best)
    is_part = len(name) >= _SHORTEST_PART
    return sorted(each for each in known if is_part and name in each)


def _plain(name: str) -> str:
    """Return a name without what people mistake: case, ``_`` for ``-``, zeros before a number."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold().replace("_", "-"))


def _complaints(unknown: list[str], where: str) -> list[str]:
    patterns = [repr(each) for each in unknown if is_pattern(each)]
    names = [repr(each) for each in unknown if not is_pattern(each)]
    return [
        *([f"there is no spec {first_of(names, _FEW)}{where}"] if names else []),
        *([f"no spec{where} matches {first_of(patterns, _FEW)}"] if patterns else []),
    ]


def _hints(unknown: list[str], known: Collection[str], otherwise: str) -> str:
    if len(unknown) == 1:
        return did_you_mean(unknown[0], known, otherwise)
    hints = [(each, did_you_mean(each, known)) for each in unknown[:_FEW]]
    return "; ".join(f"{each!r}: {hint}" for each, hint in hints if hint) or otherwise
