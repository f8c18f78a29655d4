"""The published JSON Schemas say what is written, and what is read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lago_images.building import caches
from lago_images.building.comparing.areas import AreaDifference
from lago_images.building.comparing.files import FileDifference
from lago_images.building.model import Phase, PhaseTime
from lago_images.ci.report.markdown import Entry
from lago_images.ci.report.markdown import Report as PlanReport
from lago_images.cli import answers
from lago_images.cli.answers import Cleaning, LintReport, Refreshment, Trace, Verification
from lago_images.cli.documents import document
from lago_images.cli.run_report import RunReport, image_reports
from lago_images.errors import Problem
from lago_images.host import doctor
from lago_images.jobs import publish as publish_job
from lago_images.jobs import results, timings
from lago_images.jobs.reproduce import Change, Reproduction
from lago_images.jobs.reproduce import Verdict as SameOrNot
from lago_images.planning import formats
from lago_images.repository.browsing import queries
from lago_images.repository.browsing.documents import ImagePage
from lago_images.repository.publishing import retention
from lago_images.repository.publishing.releasing import ReleaseOutcome, Verdict
from lago_images.repository.records.changes import compare_known
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.loss import AcceptedLoss
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import State, histories
from lago_images.repository.rendering.commands import Commands
from lago_images.repository.rendering.render import render
from lago_images.repository.verifying.chain import Check, CheckResult, Link, Step
from lago_images.repository.verifying.findings import Report, problem
from lago_images.storage.base import Unfinished
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import SITE, manifest, outdated, release
from tests.support.catalogue import large_state
from tests.support.ci import built, failed, plan, planned
from tests.support.schemas import DOCUMENTS, FOLDER, rendered, validator

STATE = State(
    releases=histories([release(1), release(2, "b2"), release(3, None, withdraws=2, reason="bad")]),
    objects={},
    published=None,
)
IMAGE = ImageId("debian-12", "x86_64")
PAGE = ImagePage(
    repository="s3://bucket",
    base_url="",
    name="debian-12",
    arch="x86_64",
    properties={"name": "Debian"},
    revisions=queries.revisions(STATE, IMAGE),
    bases=(),
    layers=(),
    use=(),
)
KEPT = caches.Entry(kind=caches.Kind.TREES, name="a.tar", size=1, used=1_700_000_000)
BUILDS = [
    queries.Build(source=name, manifest=manifest(build_id=name), packages=()) for name in "ab"
]

REPORT = Report(
    url="s3://bucket", images=1, versions=1, read=0, findings=(problem("index", "bad", "refresh"),)
)
LINK = Link(
    name="spec", what="a commit", checks=(Check(outcome=CheckResult.UNVERIFIED, what="why"),)
)
STEP = Step(name="debian-12", arch="x86_64", revision=1, links=(LINK,))
REMOVED = retention.Step(
    build=manifest().key.staging, objects=("a", "b"), size=3, revisions=(), why="never released"
)
SWEEP = retention.Sweep(
    retire=(),
    delete=(REMOVED,),
    abort=(Unfinished(key="builds/x", upload_id="1", begun=1.5),),
    forget=("releases/x",),
    waiting=(retention.Waiting(build=manifest().key.staging, until=1.5),),
)
TIMED = replace(
    built("c"),
    start_time=1000.0,
    expected=25,
    times=(PhaseTime(phase=Phase.BOOT, start_time=1010.0, seconds=5.0),),
)
RUN = publish_job.PublicationOutcome(
    outcomes={"debian-12": ReleaseOutcome(verdict=Verdict.RELEASED, release=release(2, "b2"))},
    missing=("other",),
    written=("index",),
    findings=REPORT.findings,
)
IMAGES_OF_RUN = image_reports(
    DirectoryStore(path=Path("missing")),
    plan(planned("one"), planned("other")),
    [built("a"), failed("b")],
    RUN,
    STATE,
)
LOSS = AcceptedLoss(
    name="debian-12",
    arch="x86_64",
    first=1,
    last=2,
    reason="no copy is left",
    accepted=1,
    by=Released(commit="c1"),
)
NAMED = answers.ReleaseName.of(release(3, None, withdraws=2, reason="bad"))
RENDERED = render(large_state(20, 3), SITE)
WRITTEN: dict[str, str | bytes] = {
    "manifest": manifest().to_json(),
    "release": release().to_json(),
    "outdated": outdated(release(), "openssl 1 2").to_json(),
    "accepted-loss": LOSS.to_json(),
    "plan": formats.to_json(plan(planned("one"), planned("two"))),
    "results": results.dump([built("a"), failed("b")]),
    "timings": timings.to_json([built("a"), failed("b"), TIMED]),
    "publication": canonical(
        results.publication_document(plan(planned()), results.stopped(plan(planned()), "why"))
    ),
    "run": document(
        RunReport(
            ok=False,
            repository="s3://bucket",
            catalogue="https://images.test/index.html",
            images=IMAGES_OF_RUN,
            written=RUN.written,
            findings=RUN.findings,
        )
    ),
    "report": document(
        answers.PlanReport.of(
            PlanReport(plan=plan(planned()), entries=(Entry(planned=planned(), result=failed()),))
        )
    ),
    "trial": document(
        answers.TriedDisk(
            disk="one.qcow2", format="qcow2", kept="kept", images=IMAGES_OF_RUN, ok=True
        )
    ),
    "cache": document(answers.CacheContent.of(Path("cache"), [KEPT], [])),
    "cache-clearing": document(
        answers.CacheClearing(folder="cache", removed=(KEPT,), left=(KEPT,))
    ),
    "set-up": document(answers.SetUp(folder="specs", written=("a",), kept=())),
    "served": document(
        answers.Served(
            url="http://127.0.0.1:8181",
            repository="image-repo",
            name="test",
            use=(Commands(title="lago", about="a template", text="lago init"),),
        )
    ),
    "host": document(
        answers.HostReport(
            checks=(doctor.Check(name="kvm", state=doctor.State.WARNING, found="no", do="x"),),
            ok=True,
        )
    ),
    "loss-acceptance": document(
        answers.LossAcceptance(lost=("x is missing",), accepted=(str(LOSS.key),))
    ),
    "withdrawal": document(
        answers.Withdrawal(
            name="debian-12",
            arch="x86_64",
            about=2,
            release=NAMED,
            withdrawn=(2,),
            current=None,
            written=("index",),
            layers=(NAMED,),
            taken=(),
        )
    ),
    "withdrawal-preview": document(
        answers.WithdrawalPreview(target=NAMED, withdrawn=(2, 1), current=None, layers=(NAMED,))
    ),
    "image-list": document(queries.listing(STATE, "s3://bucket")),
    "image-page": document(PAGE),
    "log": document(queries.log(STATE, "s3://bucket", [IMAGE])),
    "comparison": document(queries.difference(IMAGE, *BUILDS)),
    "lint": document(LintReport(specs=2, problems=(Problem("image-specs/a", 3, "wrong"),))),
    "verification": document(Verification.of(REPORT)),
    "provenance-trace": document(
        Trace(url="s3://bucket", steps=(STEP,), broken=("spec",), ok=False)
    ),
    "reproduction": document(
        Reproduction(
            repository="s3://bucket",
            name="debian-12",
            arch="x86_64",
            revision=3,
            build="b3",
            commit="c3",
            obstacles=(),
            doubts=("its packages come from archives that move on",),
            tools=(Change(name="mke2fs", old="1.47.0", new=None),),
            verdict=SameOrNot.DIFFERENT,
            base=Change(name="bootstrap:debian-12", old="sha256:1", new="sha256:2"),
            packages=compare_known((), ()),
            files=(FileDifference(path="/etc/a", what=("new",)),),
            areas=(AreaDifference(name="boot code", first=0, blocks=1),),
        )
    ),
    "cleaning": document(Cleaning.of(SWEEP, applied=True)),
    "refreshment": document(Refreshment(written=("index",), deleted=(), damaged=())),
    "images": RENDERED.files["images.json"],
    "latest": RENDERED.pages["latest/debian13-base.x86_64.json"].render(),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_published_schema_is_that_of_the_code(name):
    published = (FOLDER / f"{name}.schema.json").read_text()
    assert published == rendered(DOCUMENTS[name]), "python -m tests.support.schemas"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_written_document_matches_its_schema(name):
    Draft202012Validator.check_schema(validator(name).schema)
    assert [*validator(name).iter_errors(json.loads(WRITTEN[name]))] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_other_schemas_and_unknown_or_missing_keys_are_refused(name):
    plain = json.loads(WRITTEN[name])
    assert not validator(name).is_valid(plain | {"schema": DOCUMENTS[name].SCHEMA + 1})
    assert not validator(name).is_valid(plain | {"more": 1})
    for key in validator(name).schema["$defs"][DOCUMENTS[name].__name__]["required"]:
        assert not validator(name).is_valid({k: v for k, v in plain.items() if k != key})


def test_values_that_the_reader_refuses_do_not_match_the_schema():
    plain = json.loads(WRITTEN["manifest"])
    for path, value in (("sha1", "x"), ("size", 0), ("format", "vmdk"), ("sha512", "a" * 127)):
        assert not validator("manifest").is_valid(plain | {"disk": plain["disk"] | {path: value}})
