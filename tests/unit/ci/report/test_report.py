import re
from dataclasses import replace
from datetime import date
from xml.etree import ElementTree as ET

import pytest

from lago_images.ci.report import junit
from lago_images.ci.report.markdown import (
    LIMIT,
    MOST_STATUSES,
    SUMMARY_LIMIT,
    Entry,
    ImageOutcome,
    Report,
    chain_states,
    identity,
    render,
)
from lago_images.jobs.results import Fate
from lago_images.planning.model import Action
from lago_images.repository.publishing.releasing import Verdict
from lago_images.repository.records.changes import Package, compare_packages
from lago_images.repository.records.guest_tests import GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.manifest import BootTest
from tests.support.builders import manifest
from tests.support.ci import HOSTILE, built, failed, plan, planned
from tests.unit.ci.report.test_markdown import ACTIVE, rendered

OURS = "lago-images / images / "


def packages(*names: str) -> tuple[Package, ...]:
    return tuple(
        Package(name=n, version=v, arch="amd64") for n, _, v in (x.partition("=") for x in names)
    )


def entry(name="debian-12", **changes) -> Entry:
    result = changes.pop("result", built(name))
    plain = {
        "planned": planned(name),
        "result": result,
        "before": manifest(name, "b1", size=80 << 20),
        "after": result and result.manifest,
        "changes": compare_packages(packages("a=1", "b=1", "c=1"), packages("a=1", "b=2", "d=1")),
        "log": "https://images.example/builds/x/build.log",
    }
    return Entry(**{**plain, **changes})


def report(*entries: Entry, **changes) -> Report:
    images = tuple(e.planned for e in entries)
    return Report(
        **{
            "plan": plan(*images),
            "entries": entries,
            "identity": "images",
            "run": "https://github.com/o/r/actions/runs/1",
            **changes,
        }
    )


def test_the_table_shows_every_image_with_sizes_and_times():
    text = render(report(entry()))
    assert text.startswith("<!-- lago-images-report:images -->\n")
    shown = rendered(text)
    row = re.findall(r"<td>(.*?)</td>", shown)[:8]
    assert row[0] == "<code>debian-12</code>"
    assert row[1] == "✅ built"
    assert row[2] == "spec: <code>image-specs/debian-12 changed</code>"
    assert row[3] == "1 min 15 s"
    assert row[4] == "80.0 MiB → 100.0 MiB (+25.0 %)"
    assert row[5] == "+1 -1 ↑1"
    assert row[6] == "bios 31 s, uefi 53 s (TCG: emulation without KVM)"
    assert row[7] == '<a href="https://images.example/builds/x/build.log">log</a>'
    assert "<td><code>b</code></td>\n<td><code>1</code></td>\n<td><code>2</code></td>" in shown
    assert "Run and its artifacts" in shown


def test_a_failure_shows_step_command_and_last_lines():
    shown = rendered(render(report(entry(result=failed(), after=None, changes=None))))
    assert "❌ failed" in shown
    assert "<code>customising</code>" in shown
    assert "<code>virt-sysprep failed with exit code 1</code>" in shown
    assert "one\ntwo\n</pre>" in shown


def test_a_skipped_layer_shows_its_base():
    skipped = failed("nfs", skipped="debian-12", error="", step="", tail=())
    shown = rendered(render(report(entry("nfs", result=skipped, after=None, changes=None))))
    assert "❌ skipped" in shown
    assert "Its base <code>debian-12</code> failed." in shown


def test_text_that_is_not_utf_8_is_escaped():
    lost = failed("b", error="\udcff", tail=("\udcff",), skipped="\x00\udcff")
    told = report(
        entry("a", planned=planned("a", detail="caf\udce9")),
        entry("b", result=lost, after=None),
        entry("c", result=failed("c", error="\udcff", tail=("\udcff",)), after=None),
    )
    assert "caf\ufffd" in render(told).encode().decode()
    ET.fromstring(junit.render(told.entries))


PASSED = GuestTestRecord(name="debian-12.tests/10-ssh", seconds=2, exit_code=0, output="hello")
BROKEN = GuestTestRecord(name="debian-12.tests/20-nfs", seconds=3, exit_code=1, output=HOSTILE)
HELD = QuarantinedFailure(
    what=BROKEN.name, problem="exit 1", issue="https://example.org/@octocat", until="2026-12-31"
)


def ended(*tests, held):
    made = built().manifest
    boot = replace(made.boot, tests=tests, quarantined=held)
    return built(manifest=replace(made, boot=boot))


def test_each_test_of_a_spec_is_a_test_case():
    quiet = ended(PASSED, BROKEN, held=(HELD,))
    lost = failed("debian-13", tests=(PASSED, BROKEN))
    suite = ET.fromstring(junit.render([entry(result=quiet), entry("debian-13", result=lost)]))
    assert suite.attrib == {"name": "images", "tests": "6", "failures": "2", "skipped": "1"}
    cases = {(c.get("classname"), c.get("name")): c for c in suite}
    passed = cases["images.x86_64.debian-12", PASSED.name]
    assert (passed.get("time"), passed.findtext("system-out")) == ("2.000", "hello")
    assert "until 2026-12-31" in cases["images.x86_64.debian-12", BROKEN.name][0].get("message")
    failure = cases["images.x86_64.debian-13", BROKEN.name].find("failure")
    assert (failure.get("message"), failure.get("type")) == ("exit 1 after 3 s", "test")
    assert "@octocat" in failure.text
    assert cases["images.x86_64.debian-13", PASSED.name].find("failure") is None


@pytest.mark.parametrize(
    ("day", "said"),
    [(date(2026, 12, 1), ""), (date(2026, 12, 30), "ends tomorrow"), (date(2027, 1, 1), "ended")],
)
def test_what_is_quarantined_is_shown_with_its_end_and_without_effect(day, said):
    held = entry(result=ended(PASSED, BROKEN, held=(HELD,)), log="")
    shown = rendered(render(report(held, today=day, run="")))
    assert held.is_good
    assert "⚠️ built" in shown
    assert "1 of 2 tests failed, quarantined until 2026-12-31" in shown
    assert (
        "20-nfs: exit 1 (quarantined until 2026-12-31: https://example.org/@\u200boctocat)" in shown
    )
    assert ("the quarantine" in shown, said in shown) == (bool(said), True)
    assert "<a " not in shown


def test_why_an_image_was_not_booted_is_shown():
    made = built().manifest
    quiet = replace(made, boot=None, properties={"boot-test": "no: no agent in CirrOS"})
    assert "none: no agent in CirrOS" in rendered(
        render(report(entry(result=built(manifest=quiet))))
    )


def test_a_promoted_build_is_shown_without_a_time():
    promoted = entry(
        planned=planned(action=Action.PROMOTE, promote="b2"), result=None, after=manifest()
    )
    assert promoted.outcome is ImageOutcome.WAITING
    assert "✅ built before, waits to be released" in render(report(promoted))


@pytest.mark.parametrize("verdict", Verdict)
def test_the_verdict_of_a_publication_is_shown(verdict):
    done = entry(fate=Fate(name="debian-12", verdict=verdict))
    assert f"✅ {verdict} |" in render(report(done))
    assert chain_states(report(done)) == {OURS + "debian-12": (True, f"debian-12 {verdict}")}


def test_an_image_that_was_not_released_is_not_good():
    lost = entry(fate=Fate(name="debian-12", verdict=None, why="the key @octocat expired"))
    made = report(lost)
    shown = rendered(render(made))
    assert "❌ not released" in shown
    assert "not released: the key @\u200boctocat expired" in shown
    assert chain_states(made) == {OURS + "debian-12": (False, "debian-12 not released")}
    failure = ET.fromstring(junit.render(made.entries)).find("testcase/failure")
    assert failure.attrib == {
        "message": "not released: the key @octocat expired",
        "type": "not released",
    }


def test_a_failed_build_is_reported_before_its_missing_release():
    fate = Fate(name="debian-12", verdict=None, why="it has no build")
    assert entry(result=failed(), after=None, fate=fate).outcome is ImageOutcome.FAILED


def test_a_lost_result_is_a_failure():
    lost = entry(result=None, after=None, changes=None)
    assert lost.outcome is ImageOutcome.MISSING
    assert not report(lost).is_good
    assert "ended without a result" in render(report(lost))


def test_a_report_without_affected_images_says_so():
    assert "No image is affected." in render(report())


def test_hostile_specs_cannot_inject_markup():
    bad = entry(
        planned=planned(detail=HOSTILE),
        result=failed(step=HOSTILE, error=HOSTILE, tail=(HOSTILE, "</pre></details>"), skipped=""),
        changes=compare_packages((), (Package(name=HOSTILE, version=HOSTILE, arch="x"),)),
        log="https://x/)](javascript:alert(1))",
        after=manifest(boot=BootTest(seconds=1, accel=HOSTILE, checks=(HOSTILE,))),
    )
    shown = rendered(render(report(bad)))
    ours = shown.replace("<h3>Images</h3>", "").replace(
        '<a href="https://github.com/o/r/actions/runs/1">', ""
    )
    assert not ACTIVE.search(ours)
    # GitHub looks for no mention in a block of code.
    assert not re.search(r"@\w", re.sub(r"(?s)<pre>.*?</pre>", "", ours))
    assert ours.count("<tr>") == 4
    assert ours.count("<details") == ours.count("</details>") == 2


def size(text: str) -> int:
    return len(text.encode())


def noisy(name: str, **changes) -> Entry:
    """A failure whose last lines are long, and longer in bytes than in characters."""
    return entry(
        name,
        result=failed(name, tail=("━" * 300, "日本語" * 100) * 15, **changes),
        after=None,
        changes=None,
    )


def test_a_long_report_loses_last_lines_first():
    few = render(report(*(noisy(f"i{n}") for n in range(4))), limit=SUMMARY_LIMIT)
    entries = [noisy(f"i{n}") for n in range(20)]
    text = render(report(*entries))
    assert size(text) <= LIMIT
    # Each failure has its last line still, and all are named with their error.
    assert text.count("日本語" * 100) == text.count("<pre>\n…\n") == 20
    assert text.count("<summary>") == text.count("failed with exit code 1") == 20
    assert "left out" not in text
    assert few.count("日本語" * 100) > 4


def test_the_summary_of_400_failures_fits_githubs_limit():
    """It drops one of more than 1 MiB whole."""
    text = render(report(*(noisy(f"image-{n}") for n in range(400))), limit=SUMMARY_LIMIT)
    assert size(text) <= SUMMARY_LIMIT < 2**20
    assert "400 images affected: 400 failed." in text
    assert text.count("<details") == text.count("</details>") == 400


def test_a_long_report_is_cut_to_githubs_limit():
    entries = [noisy(f"i{n}", error="é" * 2000) for n in range(40)]
    text = render(report(*entries))
    assert size(text) <= LIMIT
    assert text.startswith("<!-- lago-images-report:images -->\n### Images\n")
    assert "40 images affected: 40 failed." in text
    assert "too long" in text
    assert "left out" in text
    assert text.count("<details") == text.count("</details>")


def test_a_table_that_is_too_long_alone_is_cut_at_a_row():
    text = render(report(*(entry(f"image-{n}") for n in range(900))))
    assert size(text) <= LIMIT
    rows = re.findall(r"^\| <code>image-\d+</code> .*log\) \|$", text, re.MULTILINE)
    assert f"_and {900 - len(rows)} more" in text
    assert text.count("<details") == text.count("</details>")


def test_failures_are_listed_however_many_images_succeeded():
    good = [entry(f"image-{n}") for n in range(900)]
    bad = entry("bad", result=failed("bad", error="no space"), after=None, changes=None)
    text = render(report(*good, bad))
    assert size(text) <= LIMIT
    assert "| <code>bad</code> | ❌ failed" in text
    assert "<code>no space</code>" in text
    assert "<pre>\none\ntwo\n</pre>" in text


def test_many_chains_stay_within_githubs_status_limit():
    entries = [entry(f"i{n}") for n in range(300)]
    assert chain_states(report(*entries)) == {OURS + "all": (True, "300 chains, 0 failed")}
    entries += [entry(f"bad{n}", result=failed(f"bad{n}"), after=None) for n in range(100)]
    states = chain_states(report(*entries))
    assert len(states) == MOST_STATUSES
    assert states[OURS + "all"] == (False, "400 chains, 100 failed")
    assert states[OURS + "bad0"] == (False, "bad0 failed")


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("a--> <b>x", "s3://b"),
        ("s3://bucket/prefix", ""),
        ("", ""),
        ("日本", "s3://b"),
        ("x" * 99, "y"),
    ],
)
def test_an_identity_does_not_leave_its_comment(name, repository):
    own = identity(name, repository)
    assert re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", own)
    assert len(own) <= 53
    assert Report(plan=plan(), identity=own).marker == f"<!-- lago-images-report:{own} -->"


def test_reports_of_several_published_repositories_are_distinguished():
    """Staging and production, names in other letters, and names that share their ASCII."""
    known = [
        ("images", "s3://staging"),
        ("images", "s3://production"),
        ("画像", "s3://b"),
        ("образы", "s3://b"),
        ("été", "s3://b"),
        ("t", "s3://b"),
        ("a", "b\0c"),
        ("a\0b", "c"),
    ]
    own = [identity(name, repository) for name, repository in known]
    assert len(set(own)) == len({each.lower() for each in own}) == len(known)
    states = [chain_states(report(entry("a"), identity=each)) for each in own]
    assert len({context for state in states for context in state}) == len(known)


def test_a_chain_is_good_if_all_its_images_are():
    good, bad = entry("a"), entry("b", result=failed("b"), after=None)
    made = report(good, bad, plan=plan(good.planned, bad.planned, chains=(("a", "b"), ("c",))))
    assert chain_states(made) == {OURS + "a": (False, "a built, b failed")}


def test_junit_has_a_test_case_for_each_image():
    skipped = failed("nfs", skipped="b", error="", step="", tail=())
    xml = junit.render(
        [
            entry("a"),
            entry("b", result=failed("b", error="\x00\x1b[1mboom \ud800 <x>"), after=None),
            entry("nfs", result=skipped, after=None),
            entry("c", result=None, after=None),
        ]
    )
    suite = ET.fromstring(xml)
    assert suite.attrib == {"name": "images", "tests": "4", "failures": "2", "skipped": "1"}
    failure = suite.find("testcase[@name='b']/failure")
    assert failure.attrib["message"] == "boom \ufffd <x>"
    assert failure.text == "one\ntwo"
