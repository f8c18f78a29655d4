"""A plan as a document, in all its forms."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.cli.plan import plan_lines
from lago_images.errors import UsageError
from lago_images.planning.formats import (
    batch,
    entries,
    from_json,
    load,
    summary,
    to_github,
    to_jenkins,
    to_json,
)
from lago_images.planning.model import Action, Plan, PlannedImage, Reason, ReasonKind

text = st.text(max_size=20)
reasons = st.builds(Reason, kind=st.sampled_from(ReasonKind), detail=text)
images = st.builds(
    PlannedImage,
    name=text,
    arch=text,
    action=st.sampled_from(Action),
    base=text,
    fingerprint=text,
    reasons=st.lists(reasons, max_size=3).map(tuple),
    promote=st.none() | text,
    promote_sha256=st.none() | text,
    revision=st.integers(0, 2**62 - 1),
    note=text,
)


@st.composite
def plans(draw):
    found = draw(st.lists(images, max_size=5, unique_by=lambda one: one.name))
    named = [one.name for one in found if one.action is not Action.RETIRE]
    return Plan(
        head=draw(st.none() | text),
        dirty=draw(st.booleans()),
        published=draw(st.none() | text),
        made=draw(st.integers(0, 2**40)),
        images=tuple(found),
        chains=((*named,),) if named else (),
        partial=draw(st.booleans()),
    )


@given(plans())
def test_the_json_has_the_whole_plan(made):
    assert from_json(to_json(made), "plan.json") == made


def example(chains: int = 2) -> Plan:
    def image(name: str, action: Action = Action.BUILD, **more) -> PlannedImage:
        return PlannedImage(
            name=name,
            arch="x86_64",
            base="x",
            fingerprint="f",
            **{"action": action, **more},
        )

    two = (
        Reason(kind=ReasonKind.SPEC, detail="a \x1b[31mred\nline"),
        Reason(kind=ReasonKind.BASE, detail="its base"),
    )
    return Plan(
        head="h",
        dirty=False,
        published=None,
        made=1,
        images=(
            *(image(f"b{n}", reasons=two) for n in range(chains)),
            *(image(f"l{n}", reasons=two[1:]) for n in range(chains)),
            image("kept", Action.KEEP, note="unchanged since revision 3"),
        ),
        chains=tuple((f"b{n}", f"l{n}") for n in range(chains)),
    )


def test_the_json_has_the_documented_keys():
    plain = json.loads(to_json(example()))
    assert (plain["schema"], plain["head"], plain["published"]) == (1, "h", None)
    assert plain["chains"] == [["b0", "l0"], ["b1", "l1"]]
    first = plain["images"][0]
    assert (first["action"], first["reasons"][1]["kind"]) == ("build", "base")
    assert {"name", "arch", "fingerprint", "base", "promote", "revision", "note"} <= first.keys()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema": 2}, "is a plan of schema 2; this lago-images knows 1"),
        ({"images": [{"name": "x"}]}, "images[0] has no arch, action, base, fingerprint"),
        ({"images": 3}, "images is 3"),
        ({"chains": [["nobody"]]}, "a chain names 'nobody'"),
        ({"chains": [[]]}, "a chain is empty"),
        ({"chains": [["a", "a"]]}, "chains name 'a' more than once"),
        ({"chains": [["a"], ["a"]]}, "chains name 'a' more than once"),
        ({"head": 3}, "head is 3, not text that UTF-8 can say, nor null"),
        ({"made": "soon"}, "made is 'soon', not a whole number"),
        ({"made": 10**30}, "not a whole number"),
        ({"made": float("inf")}, "made is inf, not a whole number"),
        ({"made": float("nan")}, "made is nan, not a whole number"),
        ({"partial": 1}, "partial is 1"),
        ({"more": 1}, "it has unknown keys: ['more']"),
    ],
)
def test_an_invalid_plan_is_refused_with_its_location(change, what):
    plain = json.loads(to_json(example())) | change
    with pytest.raises(UsageError, match=r"^plan\.json") as caught:
        from_json(json.dumps(plain), "plan.json")
    assert what in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not JSON: line 1, column 1"),
        (b"[]", "it has no schema"),
        (b"{}", "it has no schema"),
        (b"\xff", "not JSON: it is no text"),
        (b"{", "not JSON: line 1, column 2"),
        (b'{"schema": 1}', "it has no head, dirty, published, made, images, chains"),
    ],
)
def test_broken_documents_are_refused(content, what, tmp_path):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UsageError, match="is not a plan") as caught:
        load(tmp_path / "plan.json")
    assert caught.value.message == f"{tmp_path}/plan.json is not a plan: {what}"


def test_a_missing_plan_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "plan.json")


def test_a_plan_with_another_digest_is_refused(tmp_path):
    made = example()
    outputs = dict(line.split("=", 1) for line in to_github(made).splitlines())
    path = tmp_path / "plan.json"
    path.write_text(to_json(made))
    digest = outputs["plan-sha256"]
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(path, digest) == load(path) == made
    path.write_text(to_json(replace(made, head="forged")))
    with pytest.raises(UsageError, match=f"not the plan that was made: .*, not {digest}"):
        load(path, digest)


def test_text_has_a_row_for_each_reason_and_the_summary():
    assert plan_lines(example(chains=1), None) == [
        "IMAGE  ARCH    ACTION  REASON",
        "b0     x86_64  build   spec: a redline",
        "                       base: its base",
        "l0     x86_64  build   base: its base",
        "kept   x86_64  keep    unchanged since revision 3",
        "2 to build in 1 chain, 0 to promote, 1 kept, 0 retired",
    ]
    assert summary(example(chains=0)).startswith("0 to build in 0 chains")


def test_the_github_output_has_a_matrix_and_counts():
    outputs = dict(line.split("=", 1) for line in to_github(example()).splitlines())
    assert json.loads(outputs["matrix"]) == {
        "include": [
            {"chain": "b0", "batch": "1/2", "arch": "x86_64"},
            {"chain": "b1", "batch": "2/2", "arch": "x86_64"},
        ]
    }
    assert (outputs["count"], outputs["promote"], outputs["work"]) == ("2", "0", "true")


def test_an_empty_plan_is_an_empty_matrix():
    empty = to_github(example(chains=0))
    assert empty.startswith('matrix={"include": []}\ncount=0\npromote=0\nwork=false\n')


def test_a_promotion_alone_is_work_without_a_matrix():
    made = example(chains=0)
    promoted = replace(made.images[0], action=Action.PROMOTE, promote="x")
    lines = to_github(replace(made, images=(promoted,))).splitlines()
    assert lines[1:4] == ["count=0", "promote=1", "work=true"]


@pytest.mark.parametrize("chains", [1, 255, 256, 257, 1000])
def test_many_chains_are_distributed_over_at_most_256_jobs(chains):
    made = example(chains)
    found = entries(made, 256)
    count = min(chains, 256)
    assert [entry["batch"] for entry in found] == [f"{n}/{count}" for n in range(1, count + 1)]
    assert len({entry["chain"] for entry in found}) == count
    jobs = [batch(made, number, count) for number in range(1, count + 1)]
    assert sorted(name for job in jobs for name in job) == sorted(
        name for chain in made.chains for name in chain
    )
    sizes = [len(job) for job in jobs]
    assert max(sizes) - min(sizes) <= 2
    for job, entry in zip(jobs, found, strict=True):
        assert entry["chain"].split()[0] == job[0]
        assert all(job.index(f"b{n[1:]}") < job.index(n) for n in job if n[0] == "l")


def test_the_matrix_of_thousands_of_long_names_fits_githubs_limit():
    """1 MB of UTF-16 a job: https://docs.github.com/actions/reference/limits."""
    [one] = example(chains=0).images
    names = [f"{number:05}{'n' * 54}" for number in range(10_000)]
    long = replace(
        example(),
        images=tuple(replace(one, name=name) for name in names),
        chains=tuple((name,) for name in names),
    )
    assert len(to_github(long).encode("utf-16")) < 2**20 / 10


def of_two_architectures(pcs: int, arms: int) -> Plan:
    [one] = example(chains=0).images
    archs = {f"i{n:03}": "x86_64" if n < pcs else "aarch64" for n in range(pcs + arms)}
    return replace(
        example(chains=0),
        images=tuple(replace(one, name=name, arch=arch) for name, arch in archs.items()),
        chains=tuple((name,) for name in archs),
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 80))
def test_no_job_has_chains_of_two_architectures(pcs, arms, most):
    made = of_two_architectures(pcs, arms)
    archs = {image.name: image.arch for image in made.images}
    found = entries(made, most)
    assert len(found) == min(most, pcs + arms)
    jobs = [batch(made, number, len(found)) for number in range(1, len(found) + 1)]
    assert sorted(name for job in jobs for name in job) == sorted(archs)
    for entry, job in zip(found, jobs, strict=True):
        assert {archs[name] for name in job} == {entry["arch"]}
    # As long as they can be where the jobs of one architecture are no use to another.
    for arch, count in (("x86_64", pcs), ("aarch64", arms)):
        sizes = [len(job) for entry, job in zip(found, jobs, strict=True) if entry["arch"] == arch]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == count


def test_a_spec_that_changed_its_architecture_is_built_by_a_runner_of_the_new_one():
    made = of_two_architectures(0, 1)
    [image] = made.images
    left = replace(image, arch="x86_64", action=Action.RETIRE, fingerprint="")
    [entry] = entries(replace(made, images=(image, left)), 256)
    assert entry["arch"] == "aarch64"


def test_two_architectures_are_never_one_batch():
    with pytest.raises(UsageError, match="no batch 1/1 in the plan"):
        batch(of_two_architectures(1, 1), 1, 1)


@pytest.mark.parametrize(("number", "count"), [(0, 2), (3, 2), (1, 3), (1, 0)])
def test_an_unknown_batch_is_a_usage_error(number, count):
    with pytest.raises(UsageError, match=f"no batch {number}/{count} in the plan"):
        batch(example(), number, count)


def test_the_jenkins_output_has_an_entry_for_each_chain():
    made = example(300)
    found = json.loads(to_jenkins(made))
    assert len(found) == 300
    assert found[1] == {"chain": "b1", "batch": "2/300", "arch": "x86_64"}
    assert batch(made, 2, 300) == ("b1", "l1")
