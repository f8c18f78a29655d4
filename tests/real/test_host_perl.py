"""Perl that ``lint`` allows in ``edit``, run by a real Perl in the way virt-builder runs it."""

import random
import subprocess
from pathlib import Path

import pytest

from lago_images.specs.edit_command import is_harmless
from tests.tools import need

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
# As libguestfs-common's edit/file-edit.c: the expression is evaluated for a line in $_.
# CODE has no character that could end a body early.
CODE = "hit()"
PROGRAM = r"""
sub hit { $hit = 1; "x" }
while (my $expr = <STDIN>) {
    chomp $expr; $expr =~ s/\x01/\n/g; $_ = "xxa1x"; "ab" =~ /(a)/; $hit = 0;
    local $SIG{__WARN__} = sub {}; eval $expr;
    print "$expr\n" if $hit;
}
"""
PIECES = [
    *"/|#,!~%+$@{}[](?\\x'\"=;a.*\n",
    *("s/", "tr/", "y/", "$1", "$12", "${1}", "$&", "$_", "->", "/g", " if /"),
    *(
        "\\c",
        "\\N{",
        "\\x{",
        "\\Q",
        "\\E",
        CODE,
        f"{{{CODE}}}",
        f"[{CODE}]",
        f"(?{{{CODE}}})",
        f"@{{[{CODE}]}}",
    ),
]


def reached(expressions):
    """The expressions with which Perl ran the code in them."""
    need("perl")
    lines = "".join(expression.replace("\n", "\x01") + "\n" for expression in expressions)
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["perl", "-e", PROGRAM], input=lines, capture_output=True, text=True, env=env, check=True
    )
    return done.stdout


def made_up(chance):
    def some(most):
        return "".join(chance.choices(PIECES, k=chance.randint(0, most)))

    if chance.random() < 0.25:
        return f'$_ = "{some(5)}"'
    mark = chance.choice("/|#,!~%+")
    end = chance.choice(["", "g", "i", f" if /{some(3)}/"])
    return f"s{mark}{some(4)}{mark}{some(4)}{mark}{end}"


def test_allowed_edit_expressions_run_no_code():
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    tried = (made_up(chance) for _ in range(40_000))
    allowed = [expression for expression in tried if CODE in expression and is_harmless(expression)]
    assert len(allowed) > 500
    assert reached(allowed) == "", f"seed {seed}"


def test_the_harness_detects_code_execution():
    bad = [CODE, f"s/x/{CODE}/e", f"s/x/@{{[{CODE}]}}/", f"s/(?{{{CODE}}})//", f"$_ = {CODE}"]
    bad += [f"s/a/b/ if {CODE}", f"s/x/$h{{{CODE}}}/", f"s/x/$1[{CODE}]/", f"s/@{{[{CODE}]}}/x/"]
    assert reached(bad).splitlines() == bad
    assert not any(map(is_harmless, bad))


def test_the_repositorys_own_edits_take_effect():
    grub = 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="quiet"\n'
    cfg = "  set timeout=5\n\tlinux\t/boot/vmlinuz root=/dev/sda1 ro\n"
    edits = {}
    for line in (ROOT / "image-specs" / "lago-ubuntu-24.04").read_text().split("\nedit ")[1:]:
        path, _, expression = line.replace("\\\n", "\n").partition(":")
        edits[path] = expression.split("\n\n")[0].split("\nedit")[0]

    def edited(text, expression):
        program = "while (<STDIN>) { eval $ENV{EXPR}; die $@ if $@; print }"
        env = {"PATH": "/usr/bin:/bin", "EXPR": expression}
        return subprocess.run(
            ["perl", "-e", program], input=text, capture_output=True, text=True, env=env, check=True
        ).stdout

    need("perl")
    assert edited(grub, edits["/etc/default/grub"]) == (
        'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="quiet net.ifnames=0 biosdevname=0"\n'
    )
    assert edited(cfg, edits["/boot/grub/grub.cfg"]) == (
        "  set timeout=0\n\tlinux\t/boot/vmlinuz root=/dev/sda1 ro net.ifnames=0 biosdevname=0\n"
    )
