"""The tests of specs as inputs: of plans in real git repositories, and of lint."""

import stat

import pytest

from tests.functional.test_plan import World, built, made_once, world
from tests.support.planning import why
from tests.support.specs import git

__all__ = ["made_once", "world"]
SCRIPT = "#!/bin/sh\nexit 0\n"


def put(world: World, path: str) -> None:
    world.repo.write(path, SCRIPT).chmod(0o755)


@pytest.fixture
def tested(world):
    """A base with two tests, a layer on it with one behind a link; published."""
    for name, base in (("debian", "bootstrap:debian-12"), ("nfs", "layer:debian")):
        lines = (f"#base={base}", "#arch=x86_64", "#distro=debian", "")
        world.repo.write(f"image-specs/{name}", "\n".join(lines))
    put(world, "image-specs/debian.tests/10-one")
    put(world, "image-specs/debian.tests/20-two")
    put(world, "shared/check")
    (world.repo.root / "image-specs/nfs.test").symlink_to("../shared/check")
    world.repo.commit("Test them")
    world.publish()
    assert built(world.plan()) == set()
    return world


def edit(path):
    path.write_text(SCRIPT + "true\n")


def made_quick(path):
    path.write_text("#!/bin/sh\n# lago-images: timeout=5\nexit 0\n")


@pytest.mark.parametrize(
    ("path", "change", "affected"),
    [
        ("image-specs/debian.tests/10-one", edit, {"debian", "nfs", "iscsi"}),
        ("image-specs/debian.tests/10-one", made_quick, {"debian", "nfs", "iscsi"}),
        ("image-specs/debian.tests/20-two", lambda path: path.unlink(), {"debian", "nfs", "iscsi"}),
        ("image-specs/debian.test", edit, {"debian", "nfs", "iscsi"}),
        ("image-specs/debian.tests/30-three", edit, {"debian", "nfs", "iscsi"}),
        ("image-specs/nfs.test", lambda path: path.unlink(), {"nfs"}),
        ("shared/check", edit, {"nfs"}),
        ("image-specs/debian.tests/README", edit, set()),
    ],
)
def test_a_changed_test_builds_its_images_anew_and_is_the_reason(tested, path, change, affected):
    target = tested.repo.root / path
    change(target)
    if target.exists():
        target.chmod(0o755)
    before = tested.plan()
    commit = tested.repo.commit("Change it")[:7]
    after = tested.plan()
    assert (before.dirty, after.dirty) == (bool(affected), False)
    owner = "nfs" if affected == {"nfs"} else "debian"
    for made, told in (
        (before, f"{path}, which tests {owner}, differs from what is committed"),
        (after, f'{path}, which tests {owner}, changed in {commit} "Change it"'),
    ):
        assert built(made) == affected
        if affected:
            assert ("input", told) in why(made, owner)


def test_a_pull_request_that_changes_a_test_builds_its_image_alone(tested):
    git(tested.repo.root, "checkout", "-q", "-b", "feature")
    (tested.repo.root / "image-specs/nfs.test").unlink()
    put(tested, "image-specs/nfs.tests/one")
    put(tested, "image-specs/debian.tests/README")
    tested.repo.commit("Test more")
    assert built(tested.plan(scope="main")) == {"nfs"}


def test_a_test_that_lost_its_mode_is_refused_before_planning(tested):
    path = tested.repo.root / "image-specs/debian.tests/10-one"
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o111)
    ran = tested.repo.run("ci", "plan", "--repository", tested.store.url)
    assert ran.code == 2
    assert "image-specs/debian.tests/10-one: is a test and not executable" in ran.err


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("image-specs/debian.tests", {"one", "two"}),
        ("image-specs/debian.tests/one", {"one"}),
        ("image-specs/nfs.test", {"nfs.test"}),
        ("image-specs/debian", set()),
        ("image-specs", {"one", "two", "nfs.test"}),
    ],
)
def test_lint_prints_the_problems_of_tests_and_takes_them_for_no_specs(tested, path, found):
    for name in ("debian.tests/one", "debian.tests/two"):
        tested.repo.write(f"image-specs/{name}", SCRIPT)
    (tested.repo.root / "shared/check").write_text("true\n")
    ran = tested.repo.run("lint", path)
    assert ran.code == (2 if found else 0)
    lines = ran.out.splitlines()
    assert {line.partition(":")[0].rpartition("/")[2] for line in lines} == found


HELD = """\
[[quarantine]]
image = "debian"
issue = "https://example.org/1"
until = {until}

[[quarantine]]
test = "*/30-three"
issue = "https://example.org/2"
until = 2999-01-01
"""


def test_lint_tells_what_a_quarantine_is_no_longer_good_for(tested):
    tested.repo.write("image-specs/quarantine.toml", HELD.format(until="2020-02-29"))
    for path in ((), ("image-specs/quarantine.toml",)):
        ran = tested.repo.run("lint", *path)
        assert (ran.code, ran.out) == (0, "")
        ended = "image debian: the quarantine ended on 2020-02-29: what it held back fails"
        assert f"image-specs/quarantine.toml:1: {ended}" in ran.err
        gone = "there is no test */30-three: remove the entry"
        assert f"image-specs/quarantine.toml:6: {gone}" in ran.err


@pytest.mark.parametrize("command", [("lint",), ("ci", "plan"), ("build",)])
def test_a_bad_quarantine_stops_every_command_with_its_line(tested, command):
    tested.repo.write("image-specs/quarantine.toml", HELD.format(until="soon"))
    ran = tested.repo.run(*command)
    assert ran.code == 2
    assert "image-specs/quarantine.toml:4: not TOML: " in ran.out + ran.err


def test_a_quarantine_behind_a_link_is_committed_or_dirty(tested):
    tested.repo.write("held.toml", HELD.format(until="2999-01-01"))
    (tested.repo.root / "image-specs/quarantine.toml").symlink_to("../held.toml")
    tested.repo.commit("Hold it back")
    assert not tested.plan().dirty
    tested.repo.write("held.toml", HELD.format(until="2999-01-02"))
    assert tested.plan().dirty


def test_a_quarantine_is_no_input_and_is_published_committed(tested):
    tested.repo.write("image-specs/quarantine.toml", HELD.format(until="2999-01-01"))
    made = tested.plan()
    assert (built(made), made.dirty) == (set(), True)
    tested.repo.commit("Hold it back")
    made = tested.plan()
    assert (built(made), made.dirty) == (set(), False)
