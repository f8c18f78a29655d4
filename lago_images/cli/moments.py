"""Tell people of moments, which are seconds since the epoch.

All are in UTC, as the catalogue and the records have them: people in two zones compare notes.
"""

from datetime import UTC, datetime

_DAY = 86_400


def day(moment: float) -> str:
    """Return the day of a moment, as ``2026-01-31``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def minute(moment: float) -> str:
    """Return the minute of a moment, as ``2026-01-31 20:59Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%MZ")


def age(moment: float, now: float) -> str:
    """Return an age in the largest unit that it has two of, as ``3 d``."""
    seconds = max(0, int(now - moment))
    for unit, length in (("y", 365 * _DAY), ("mo", 30 * _DAY), ("d", _DAY), ("h", 3600)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds // 60} min"
