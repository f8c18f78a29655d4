"""The report of a run, as Markdown: a pure function of the plan, the results and the packages.

Text of strangers is shown as it is, and without effect, in what GitHub renders.
"""

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from lago_images.building.model import Result
from lago_images.console import clean, human_size
from lago_images.jobs.results import Fate
from lago_images.planning.model import Action, Plan, PlannedImage
from lago_images.repository.publishing.releasing import Verdict
from lago_images.repository.records.changes import PackageChanges
from lago_images.repository.records.guest_tests import GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.manifest import Manifest
from lago_images.specs.quarantine import ending

_WIDE = 240
# A reference works as text and never as structure (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references);
# what is left is looked for by GitHub after rendering: mentions, which a zero-width space ends.
_ACTIVE = re.compile(r"[^\w \u0080-\U0010ffff-]|_")


def inert(text: str, *, limit: int = _WIDE) -> str:
    """Return one line of text that cannot leave its place, link, mention or format.

    ``limit`` is in characters.
    """
    line = clean(" ".join(text.split()))
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    return _ACTIVE.sub(_reference, line)


def code(text: str, *, limit: int = _WIDE) -> str:
    """Return ``inert`` text in a code span, where GitHub looks for no mention or issue."""
    return f"<code>{inert(text, limit=limit)}</code>"


def block(lines: Sequence[str], *, limit: int | None = None) -> str:
    """Return lines as they were printed, in a block that nothing in them can end.

    Of more than ``limit`` bytes the last lines are shown.
    """
    shown: list[str] = []
    remaining = limit
    for line in reversed(lines):
        text = html.escape(clean(line)[:1000])
        if remaining is not None:
            remaining -= _bytes(text) + 1
            if remaining < 0:
                shown.append("…")
                break
        shown.append(text)
    return "\n".join(["<pre>", *reversed(shown), "</pre>"])


def _bytes(text: str) -> int:
    return len(text.encode())


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return a table of cells that are Markdown already: ``inert`` or our own."""
    lines = [heads, ("---",) * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    return f"&#{ord(character)};" + ("\u200b" if character == "@" else "")


# In bytes: GitHub refuses comments longer than 65,536 characters, and drops step summaries of more
# than 1 MiB whole (https://docs.github.com/actions/reference/limits).
LIMIT = 60_000
SUMMARY_LIMIT = 1_000_000
# Of each failure's last lines, in bytes: the first of these with which everything fits.
_TAILS = (8192, 2048, 512, 0)
_SHOWN_PACKAGES = 60
_SHOWN_REASONS = 4
# GitHub takes 80 requests that make something in a minute
# (https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api).
MOST_STATUSES = 50


class ImageOutcome(StrEnum):
    """The end of an image's part of a run."""

    BUILT = "built"
    WAITING = "built before, waits to be released"
    RELEASED = str(Verdict.RELEASED)
    ALREADY = str(Verdict.ALREADY)
    SUPERSEDED = str(Verdict.SUPERSEDED)
    WITHDRAWN = str(Verdict.WITHDRAWN)
    FAILED = "failed"
    SKIPPED = "skipped"
    MISSING = "no result"
    UNRELEASED = "not released"


_BAD = {ImageOutcome.FAILED, ImageOutcome.SKIPPED, ImageOutcome.MISSING, ImageOutcome.UNRELEASED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One affected image.

    Attributes:
        result: None when no job left one.
        before: The build that was published when the plan was made.
        changes: Between the packages of ``before`` and of the new build; None if not known.
        after: The new build's manifest: this run's, or the one promoted.
        log: The URL of its log; empty if there is none.
        fate: The end of its publication; None where there is no record of one.
    """

    planned: PlannedImage
    result: Result | None = None
    before: Manifest | None = None
    after: Manifest | None = None
    changes: PackageChanges | None = None
    log: str = ""
    fate: Fate | None = None

    @property
    def outcome(self) -> ImageOutcome:
        if self.fate is not None and self.fate.verdict is not None:
            return ImageOutcome(self.fate.verdict)
        built = self._built
        return built if self.fate is None or built in _BAD else ImageOutcome.UNRELEASED

    @property
    def is_good(self) -> bool:
        return self.outcome not in _BAD

    @property
    def error(self) -> str:
        """Return what went wrong, for an image that is not good."""
        if self.outcome is ImageOutcome.UNRELEASED and self.fate is not None:
            return f"not released: {self.fate.why}"
        return self.result.error if self.result else "its job ended without a result"

    @property
    def tests(self) -> Sequence[GuestTestRecord]:
        """Return how the tests of the spec's own ended, also those that failed the image."""
        if self.result and self.result.tests:
            return self.result.tests
        return self.after.boot.tests if self.after and self.after.boot else ()

    @property
    def quarantined(self) -> Sequence[QuarantinedFailure]:
        """Return what failed and was held back."""
        return self.after.boot.quarantined if self.after and self.after.boot else ()

    @property
    def _built(self) -> ImageOutcome:
        if self.planned.action is Action.PROMOTE:
            return ImageOutcome.WAITING if self.after is not None else ImageOutcome.MISSING
        if self.result is None:
            return ImageOutcome.MISSING
        if self.result.skipped:
            return ImageOutcome.SKIPPED
        return ImageOutcome.BUILT if self.result.ok else ImageOutcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the Markdown is made of.

    Attributes:
        identity: Of the repository; an earlier comment of ours, and each status, carries it.
        run: The URL of the CI run; empty if there is none.
        today: For what is quarantined; None where that is not asked.
    """

    plan: Plan
    entries: Sequence[Entry] = field(default_factory=tuple)
    identity: str = ""
    run: str = ""
    today: date | None = None

    @property
    def marker(self) -> str:
        """Return the hidden first line of our comment."""
        return f"<!-- lago-images-report:{self.identity} -->"

    @property
    def is_good(self) -> bool:
        return all(entry.is_good for entry in self.entries)


def identity(name: str, repository: str) -> str:
    """Return what tells a repository from every other that is published from one git repository.

    As much of its name as is ASCII, for people, and a digest of all of its name and place.
    """
    digest = hashlib.sha256(f"{name}\0{repository}".encode(errors="replace")).hexdigest()[:12]
    shown = re.sub("[^A-Za-z0-9]+", "-", name)[:40].strip("-")
    return f"{shown}-{digest}" if shown else digest


def render(report: Report, *, limit: int = LIMIT) -> str:
    """Return the report in at most ``limit`` bytes of UTF-8, with failures first in the details.

    To fit, the failures' last lines are cut first, then the details at the end and the table's
    rows, which begin with the failures then, and never the head.
    """
    head = "\n".join([report.marker, "### Images", "", summary(report), "", ""])
    head += _images(report.entries, limit * 2 // 3)
    commit = f"Commit {code(report.plan.head[:12])}." if report.plan.head else ""
    link = _link("Run and its artifacts", report.run)
    footer = "\n" + " ".join(part for part in (commit, link) if part) + "\n"
    failures: list[str] = []
    for tail in _TAILS:
        failures = [_failure(entry, tail) for entry in report.entries if not entry.is_good]
        if sum(_bytes(part) + 1 for part in failures) + _bytes(head) + _bytes(footer) <= limit:
            break
    held = [part for entry in report.entries if (part := _quarantined(entry, report.today))]
    packages = [part for entry in report.entries if (part := _packages(entry))]
    return _fitted(head, [*failures, *held, *packages], footer, limit)


def summary(report: Report) -> str:
    """Return one sentence: how many images, and how they ended."""
    if not report.entries:
        return "No image is affected."
    counts = dict.fromkeys(ImageOutcome, 0)
    for entry in report.entries:
        counts[entry.outcome] += 1
    ended = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    images = "image" if len(report.entries) == 1 else "images"
    return f"{len(report.entries)} {images} affected: {ended}."


def chain_states(report: Report) -> Mapping[str, tuple[bool, str]]:
    """Return for each chain, by its status' context, whether all of it is good, and a sentence.

    Of more chains than ``MOST_STATUSES`` the first that failed, and ``all`` for all.
    """
    prefix = f"lago-images / {report.identity} / "
    entries = {entry.planned.name: entry for entry in report.entries}
    states = {}
    for chain in report.plan.chains:
        members = [entries[name] for name in chain if name in entries]
        if members:
            ended = ", ".join(f"{e.planned.name} {e.outcome}" for e in members)
            states[prefix + chain[0]] = (all(e.is_good for e in members), ended)
    if len(states) <= MOST_STATUSES:
        return states
    failed = [name for name, (is_good, _) in states.items() if not is_good]
    return {
        prefix + "all": (not failed, f"{len(states)} chains, {len(failed)} failed"),
        **{name: states[name] for name in failed[: MOST_STATUSES - 1]},
    }


def _fitted(head: str, parts: list[str], footer: str, limit: int) -> str:
    note = "\n_More is in the run's log: this report was too long._\n"
    used, remaining = _bytes(head), limit - _bytes(footer)
    spare = _bytes(note) + len("(1000000 parts left out)\n")
    shown = [head]
    for number, part in enumerate(parts):
        used += _bytes(part) + 1
        if used > remaining - (spare if number + 1 < len(parts) else 0):
            return f"{''.join(shown)}{note}({len(parts) - number} parts left out)\n{footer}"
        shown.append("\n" + part)
    return "".join([*shown, footer])


def _images(entries: Sequence[Entry], remaining: int) -> str:
    heads = ("Image", "What", "Why", "Time", "Size", "Packages", "Boot test", "Log")
    lines = table(heads, [_row(entry) for entry in entries])
    if sum(map(_bytes, lines)) + len(lines) > remaining:
        lines = table(heads, [_row(entry) for entry in sorted(entries, key=lambda e: e.is_good)])
        shown, used = 0, 0
        while used + _bytes(lines[shown]) + 1 <= remaining:
            used += _bytes(lines[shown]) + 1
            shown += 1
        lines = [
            *lines[:shown],
            "",
            f"_and {len(lines) - shown} more, in the run's log: too long._",
        ]
    return "\n".join([*lines, "", ""]) if entries else ""


def _row(entry: Entry) -> tuple[str, ...]:
    mark, packages = "✅" if entry.is_good else "❌", ""
    if entry.is_good and entry.quarantined:
        mark = "⚠️"
    if (changes := entry.changes) is not None:
        packages = f"+{len(changes.added)} -{len(changes.removed)} ↑{len(changes.upgraded)}"
    return (
        code(entry.planned.name),
        f"{mark} {entry.outcome}",
        _reasons(entry.planned),
        _time(entry),
        _size(entry),
        packages,
        _boot(entry),
        _link("log", entry.log),
    )


def _reasons(planned: PlannedImage) -> str:
    shown = [f"{reason.kind}: {code(reason.detail)}" for reason in planned.reasons[:_SHOWN_REASONS]]
    more = len(planned.reasons) - _SHOWN_REASONS
    return "<br>".join(shown + ([f"and {more} more"] if more > 0 else []))


def _time(entry: Entry) -> str:
    if entry.result is None:
        return ""
    minutes, seconds = divmod(round(entry.result.seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _size(entry: Entry) -> str:
    if entry.after is None:
        return ""
    after = entry.after.disk.compressed_size
    if entry.before is None:
        return f"new → {human_size(after)}"
    before = entry.before.disk.compressed_size
    change = "" if not before else f" ({100 * (after - before) / before:+.1f} %)"
    return f"{human_size(before)} → {human_size(after)}{change}"


def _boot(entry: Entry) -> str:
    if entry.after is None:
        return ""
    checks = ", ".join(entry.after.boot.checks) if entry.after.boot else ""
    return "<br>".join(inert(text) for text in (entry.after.tried, checks) if text)


def _link(text: str, url: str) -> str:
    # Only a URL of ours gets here; a strange one is left out rather than repaired.
    plain = url.startswith(("https://", "http://")) and not set(url) & set(" |()<>\"'`\\\n\r")
    return f"[{text}]({url})" if plain else ""


def _failure(entry: Entry, tail: int) -> str:
    """Return the details of a failed image, with ``tail`` bytes of its last lines."""
    result = entry.result
    title = f"<summary>{code(entry.planned.name)}: {entry.outcome}</summary>"
    lines = ["<details open>", title, ""]
    if entry.outcome is ImageOutcome.UNRELEASED:
        lines += [code(entry.error, limit=2000), ""]
    elif result is None:
        lines += ["Its job ended without a result: see the run's log.", ""]
    elif result.skipped:
        lines += [f"Its base {code(result.skipped)} failed.", ""]
    else:
        step = f"While {code(result.step)}: " if result.step else ""
        lines += [f"{step}{code(result.error, limit=2000)}", ""]
        if result.tail:
            left_out = "Its last lines are in the run's log: this report was too long."
            lines += [block(result.tail, limit=tail) if tail else left_out, ""]
    return "\n".join([*lines, "</details>", ""])


def _quarantined(entry: Entry, today: date | None) -> str:
    """Return what failed and was held back, with when that ends if it is soon."""
    if not entry.quarantined:
        return ""
    title = f"<summary>{code(entry.planned.name)}: quarantined</summary>"
    lines = []
    for failure in entry.quarantined:
        end = ""
        # A record is a builder's word, and no month has a 99th day.
        with suppress(ValueError):
            end = ending(date.fromisoformat(failure.until), today) if today else ""
        said = f"{failure}; the quarantine {end}" if end else str(failure)
        # No link: the URL may be one of a pull request, and the token that posts it is ours.
        lines.append(f"- {code(said, limit=500)}")
    return "\n".join(["<details open>", title, "", *lines, "", "</details>", ""])


def _packages(entry: Entry) -> str:
    changes = entry.changes
    if not changes:
        return ""
    rows: list[tuple[str, ...]] = [
        *((code(each.name), code(each.old), code(each.new)) for each in changes.upgraded),
        *((code(each.name), "", code(each.version)) for each in changes.added),
        *((code(each.name), code(each.version), "") for each in changes.removed),
    ]
    shown = table(("Package", "Published", "New"), rows[:_SHOWN_PACKAGES])
    more = len(rows) - _SHOWN_PACKAGES
    rest = [f"and {more} more", ""] if more > 0 else []
    title = f"<summary>{code(entry.planned.name)}: packages</summary>"
    return "\n".join(["<details>", title, "", *shown, "", *rest, "</details>", ""])
