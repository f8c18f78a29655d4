"""The runner of tutorials sees what differs, and nothing that has to."""

import shlex

import pytest

from tests.support import laptop
from tests.support.tutorial import Session, beginning, difference, steps

TEXT = """\
Text.
```console
$ cat <<'END'
> one
>
> END
one
…
$ true
```
```sh
not run
```
"""


def test_the_page_names_the_commands_that_its_test_does_not_run():
    left = {shlex.join(shlex.split(each)[:3]) for each in laptop.ELSEWHERE}
    source = "git+https://github.com/lago-project/lago-images"
    assert left == {"sudo apt-get install", f"pipx install {source}"}
    assert "`apt-get install` and `pipx install`" in beginning(laptop.TUTORIAL)


def test_commands_have_their_lines_and_their_output():
    one, two = steps(TEXT)
    assert (one.command, one.shown) == ("cat <<'END'\none\n\nEND", ("one", "…"))
    assert (two.command, two.shown) == ("true", ())


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        (["built in 3 s, 1.0 MiB"], "built in 61 s, 104.8 MiB\n"),
        (["a", "…", "z"], "a\nb\nc\nz\n"),
        (["a", "…", "z"], "a\nz\n"),
        (["spec: …"], "spec: image-specs/a changed\n"),
        (["name  size   age"], "name      size age".replace(" age", "  age")),
        (["commit: 8770f4a39c51"], "commit: 0123456789ab"),
        ([], ""),
    ],
)
def test_what_varies_is_the_same(shown, got):
    assert difference(tuple(shown), got) == ""


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ([], "something\n"),
        (["one"], ""),
        (["one"], "two\n"),
        (["a", "…", "z"], "a\nb\n"),
        (["revision 1"], "revision 2\n"),
        (["a.c"], "abc"),
    ],
)
def test_what_differs_is_told(shown, got):
    assert difference(tuple(shown), got)


def test_a_shell_keeps_what_was_set_and_a_failure_ends_the_run(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("```console\n$ cd /\n$ ONE=1\n$ echo $ONE $PWD\n1 /\n```\n")
    session = Session(home=tmp_path, environ={"PATH": "/usr/bin:/bin"})
    session.run(document)
    document.write_text("```console\n$ false\n…\n```\n")
    with pytest.raises(AssertionError, match="false"):
        session.run(document)
    document.write_text("```console\n$ echo one\ntwo\n```\n")
    with pytest.raises(AssertionError, match="two"):
        session.run(document)
