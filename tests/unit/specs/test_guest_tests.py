"""The tests of specs: which files they are, what they say of themselves, what is wrong."""

import pytest

from lago_images.errors import SpecError
from lago_images.specs.guest_tests import _NAMED
from lago_images.specs.host_files import host_files, refuse_pointers
from lago_images.specs.model import GuestTest
from lago_images.specs.read import inspect, read

SCRIPT = "#!/bin/sh\n"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"


@pytest.fixture
def repo(tmp_path):
    """A specs repository with the layer ``b`` on ``a``, and whatever else is written."""

    class Repo:
        root = tmp_path

        def write(self, name, text=SCRIPT, mode=0o755):
            path = tmp_path / "image-specs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            path.chmod(mode)
            return path

        def spec(self, name, base, *lines):
            text = "\n".join([f"#base={base}", "#arch=x86_64", "#distro=el9", *lines, ""])
            self.write(name, text, 0o644)

        def problems(self):
            return [str(problem) for problem in inspect(tmp_path, "image-specs").problems]

    made = Repo()
    made.spec("a", "libguestfs:x")
    made.spec("b", "layer:a")
    return made


def names(spec):
    return [test.name for test in spec.tests]


def test_a_spec_is_tested_by_a_file_and_a_folder_and_its_layers_by_those_first(repo):
    for name in ("a.test", "a.tests/20-b", "a.tests/10-a", "b.tests/one"):
        repo.write(name)
    repo.write("a.tests/README", "what is here", 0o644)
    repo.write("a.tests/10-a~", "left behind", 0o644)
    specs = read(repo.root, "image-specs")
    assert list(specs) == ["a", "b"]
    assert names(specs["a"]) == ["a.test", "a.tests/10-a", "a.tests/20-b"]
    assert names(specs["b"]) == [*names(specs["a"]), "b.tests/one"]
    assert [test.name for test in specs["b"].own_tests] == ["b.tests/one"]
    assert host_files(specs["b"]) == ("image-specs/b.tests/one",)


def test_a_test_says_how_it_is_run(repo):
    options = "# lago-images: reboot=yes timeout=7 network=yes"
    repo.write("a.test", f"{SCRIPT}\n{options}\nexit 0\n")
    repo.write("b.test", "#!/usr/bin/python3\n")
    specs = read(repo.root, "image-specs")
    plain = {"spec": "a", "name": "a.test", "path": "image-specs/a.test"}
    assert specs["a"].tests == (GuestTest(**plain, reboot=True, timeout=7, network=True),)
    assert specs["b"].own_tests[0].timeout == 120


@pytest.mark.parametrize(
    "comment",
    [
        "# lago-images runs this as root",
        "# images: a=b",
        "# timeout=3",
        "# lago images",
        # Each comma and each key is a place to part them at: 2**60 ways.
        f"# drive {','.join(f'key{number}=x' for number in range(60))} (as in QEMU)",
        f"# lago-image: {','.join(f'key{number}=x' for number in range(60))} (as in QEMU)",
    ],
)
def test_other_comments_of_a_test_are_no_options(repo, comment):
    repo.write("a.test", f"{SCRIPT}{comment}\n")
    assert repo.problems() == []


def test_a_program_needs_no_interpreter_and_has_no_options(repo):
    repo.write("a.test", b"\x7fELF\x02\n# lago-images: what=ever\n\xff")
    assert repo.problems() == []


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("echo\n", 1, "its first line does not name what runs it, as #!/bin/sh does"),
        ("#!/bin/sh\r\n", 1, "a carriage return, which no guest finds a program with"),
        ("\0GITCRYPT\0rest", None, "is locked by git-crypt (git-crypt unlock)"),
        (f"{SCRIPT}# lago-images: rebot=yes\n", 2, "option 'rebot'; did you mean 'reboot'?"),
        (f"{SCRIPT}# lago-images: reboot\n", 2, "reboot must be yes or no, not ''"),
        (f"{SCRIPT}# lago-images: timeout=2m\n", 2, "timeout must be 1 to 3600 seconds, not '2m'"),
        (f"{SCRIPT}# lago-images: timeout=0\n", 2, "timeout must be 1 to 3600 seconds, not '0'"),
        (f"{SCRIPT}# lago-images: timeout=3601\n", 2, "seconds, not '3601'"),
        (f"{SCRIPT}# lago-images: reboot=no reboot=no\n", 2, "reboot stands twice"),
        (f"{SCRIPT}{'#' * 9}\n# lago-images:\n# lago-images:\n", 4, "stand in one line"),
        (f"{SCRIPT}# lago-image: timeout=30\n", 2, "options: write # lago-images: timeout=30"),
        (f"{SCRIPT}##lago-image:timeout=3 a=b=c\n", 2, "write # lago-images: timeout=3 a=b=c"),
        (f"{SCRIPT}# lago-images timeout=3\n", 2, "options: write # lago-images: timeout=3"),
        (f"{SCRIPT}#lago_images : reboot=yes\n", 2, "options: write # lago-images: reboot=yes"),
        (SCRIPT + "\n" * 9 + "# lago-images: timeout=5\n", 11, "stand in its first 10 lines"),
    ],
)
def test_a_test_that_could_not_run_as_it_says_is_a_problem(repo, text, line, what):
    repo.write("a.test", text)
    [found] = repo.problems()
    assert found.startswith(f"image-specs/a.test:{line}: " if line else "image-specs/a.test: ")
    assert found.endswith(what)


def test_a_test_that_is_not_executable_is_a_problem(repo):
    repo.write("a.tests/one", mode=0o644)
    [found] = repo.problems()
    assert found.startswith("image-specs/a.tests/one: is a test and not executable: chmod +x")


def test_a_test_of_no_spec_is_a_problem(repo):
    repo.write("lago.test")
    repo.write("aa.tests/one")
    assert repo.problems() == [
        "image-specs/aa.tests: there is no spec 'aa' that it could test; did you mean 'a'?",
        "image-specs/lago.test: there is no spec 'lago' that it could test",
    ]


def test_a_test_of_a_spec_that_cannot_be_understood_is_no_further_problem(repo):
    repo.write("c", "update\n", 0o644)
    repo.write("c.test")
    assert {found.partition(":")[0] for found in repo.problems()} == {"image-specs/c"}


@pytest.mark.parametrize("check", ["no: it is tiny", "console:login:"])
def test_a_spec_with_tests_whose_agent_is_not_asked_is_a_problem(repo, check):
    repo.spec("a", "libguestfs:x", f"#boot-test={check}")
    assert repo.problems() == []
    repo.write("a.test")
    assert repo.problems() == [
        (
            "image-specs/a:4: with this boot-test no guest agent is asked, and it is what runs "
            "tests: remove a.test, or write #boot-test=yes"
        ),
    ]


def test_a_layer_may_give_up_the_boot_test_of_its_base(repo):
    repo.write("a.test")
    repo.spec("b", "layer:a", "#boot-test=no: it has no agent any more")
    assert repo.problems() == []


def test_links_lead_to_files_and_folders_of_the_repository_alone(repo, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "test"
    outside.write_text(SCRIPT)
    shared = repo.root / "shared"
    shared.mkdir()
    (repo.root / ".git").mkdir()
    (repo.root / ".git/hook").write_text(SCRIPT)
    repo.write("../shared/one")
    specs = repo.root / "image-specs"
    (specs / "a.tests").symlink_to("../shared")
    (specs / "b.test").symlink_to("../shared/one")
    assert names(read(repo.root, "image-specs")["b"]) == ["a.tests/one", "b.test"]
    (shared / "two").symlink_to(outside)
    (shared / "three").symlink_to("../.git/hook")
    (shared / "four").symlink_to("nowhere")
    assert sorted(repo.problems()) == [
        "image-specs/a.tests/four: cannot be read: No such file or directory",
        "image-specs/a.tests/three: leads to git's own files, which may hold credentials",
        "image-specs/a.tests/two: leads out of the repository",
    ]


def test_what_is_no_file_or_no_folder_is_a_problem(repo):
    repo.write("a.tests")
    repo.write("b.test/x")
    repo.write("b.tests/below/x")
    repo.write("b.tests/a b")
    assert repo.problems() == [
        "image-specs/a.tests: is no folder: a single test is a.test",
        "image-specs/b.test: is not a regular file",
        f"image-specs/b.tests: has a test named 'a b': {_NAMED}",
        "image-specs/b.tests/below: is not a regular file",
    ]


def test_a_folder_without_tests_is_a_problem(repo):
    repo.write("a.tests/.gitkeep", "", 0o644)
    (repo.root / ".gitmodules").write_text('[submodule "x"]\npath = image-specs/b.tests\n')
    (repo.root / "image-specs/b.tests").mkdir()
    assert repo.problems() == [
        "image-specs/a.tests: has no tests in it",
        "image-specs/b.tests: has no tests in it (git submodule update --init)",
    ]


def test_a_test_has_a_bound(repo):
    repo.write("a.test", SCRIPT + "#" * (1 << 20))
    [found] = repo.problems()
    assert found == "image-specs/a.test: has 1048586 bytes, more than 1048576"


def test_a_pointer_of_git_lfs_is_planned_and_not_built(repo):
    repo.write("a.test", POINTER)
    specs = read(repo.root, "image-specs")
    with pytest.raises(SpecError, match=r"b: host path 'image-specs/a.test' is only a Git LFS"):
        refuse_pointers(specs["b"], repo.root)


def test_a_cycle_of_layers_with_tests_ends(repo):
    repo.spec("a", "layer:b")
    repo.write("a.test")
    [found] = repo.problems()
    assert "a cycle of layers" in found
