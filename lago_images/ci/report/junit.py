"""The outcomes as JUnit XML, for CIs that show tests."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from lago_images.ci.report.markdown import Entry, ImageOutcome
from lago_images.console import clean
from lago_images.repository.records.guest_tests import GuestTestRecord


def render(entries: Iterable[Entry]) -> bytes:
    """Return a test case for each affected image, and for each test of its spec's own.

    A failed one has its error and last lines; one whose failure is quarantined is skipped.
    """
    suite = Element("testsuite", name="images")
    for entry in entries:
        _image(suite, entry)
        for record in entry.tests:
            _test(suite, entry, record)
    suite.set("tests", str(len(suite)))
    for kind, count in ("failure", "failures"), ("skipped", "skipped"):
        suite.set(count, str(len(suite.findall(f"testcase/{kind}"))))
    indent(suite)
    return (
        b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, encoding="unicode").encode()
    )


def _image(suite: Element, entry: Entry) -> None:
    seconds = entry.result.seconds if entry.result else 0
    case = _case(suite, f"images.{entry.planned.arch}", entry.planned.name, seconds)
    if entry.outcome is ImageOutcome.SKIPPED:
        SubElement(case, "skipped", message=_xml(f"its base {_base(entry)} failed"))
    elif not entry.is_good:
        _failure(case, entry)
    elif entry.quarantined:
        SubElement(case, "system-out").text = _xml("\n".join(map(str, entry.quarantined)))


def _test(suite: Element, entry: Entry, record: GuestTestRecord) -> None:
    group = f"images.{entry.planned.arch}.{entry.planned.name}"
    case = _case(suite, group, record.name, record.seconds)
    held = next((each for each in entry.quarantined if each.what == record.name), None)
    if held:
        SubElement(case, "skipped", message=_xml(str(held)))
    elif not record.has_passed:
        SubElement(case, "failure", message=_xml(str(record)), type="test").text = _xml(
            record.output
        )
        return
    SubElement(case, "system-out").text = _xml(record.output)


def _case(suite: Element, group: str, name: str, seconds: float) -> Element:
    return SubElement(
        suite, "testcase", classname=_xml(group), name=_xml(name), time=f"{seconds:.3f}"
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
