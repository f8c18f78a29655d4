"""The outcomes as JUnit XML, for CIs that show tests."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from lago_images.ci.report.markdown import Entry, ImageOutcome
from lago_images.console import clean


def render(entries: Iterable[Entry]) -> bytes:
    """Return a test case for each affected image; a failed one has its error and last lines."""
    cases = list(entries)
    suite = Element("testsuite", name="images", tests=str(len(cases)))
    failures = skipped = 0
    for entry in cases:
        case = SubElement(
            suite,
            "testcase",
            classname=f"images.{entry.planned.arch}",
            name=entry.planned.name,
            time=f"{entry.result.seconds if entry.result else 0:.3f}",
        )
        if entry.outcome is ImageOutcome.SKIPPED:
            skipped += 1
            SubElement(case, "skipped", message=_xml(f"its base {_base(entry)} failed"))
        elif not entry.is_good:
            failures += 1
            _failure(case, entry)
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    indent(suite)
    return (
        b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, encoding="unicode").encode()
    )


def _base(entry: Entry) -> str:
    return entry.result.skipped if entry.result else ""


def _failure(case: Element, entry: Entry) -> None:
    result = entry.result
    failure = SubElement(case, "failure", message=_xml(entry.error), type=str(entry.outcome))
    failure.text = "\n".join(_xml(line) for line in result.tail) if result else ""


def _xml(text: str) -> str:
    # XML 1.0 has no way to write these: https://www.w3.org/TR/xml/#charsets
    lines = "\n".join(clean(line) for line in text.splitlines())
    return "".join(c for c in lines if c not in "\ufffe\uffff")
