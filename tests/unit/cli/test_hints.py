"""A command that a hint names is pasted where the call was that it follows."""

import re

import pytest

from lago_images.cli.hints import _COMMAND, completed
from lago_images.cli.main import main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lago-images repo verify", "lago-images -C specs --repository 'a b' repo verify"),
        (
            "look: lago-images repo list; or lago-images -C specs x",
            "look: lago-images -C specs --repository 'a b' repo list; or lago-images -C specs x",
        ),
        # What is there already stays as it is.
        ("lago-images -C x repo list", "lago-images -C x repo list"),
        ("lago-images --repository x repo list", "lago-images --repository x repo list"),
        ("lago-images repo list --repository x", "lago-images -C specs repo list --repository x"),
        ("lago-images repo list -C x; y", "lago-images --repository 'a b' repo list -C x; y"),
        ("lago-images build a --repo-dir x", "lago-images -C specs build a --repo-dir x"),
        # An argument names a repository.
        ("lago-images serve /x", "lago-images -C specs serve /x"),
        ("serve it: lago-images serve", "serve it: lago-images -C specs --repository 'a b' serve"),
        ("lago-images repo verify https://x", "lago-images -C specs repo verify https://x"),
        ("lago-images lint", "lago-images -C specs lint"),
        # Another program's, and those of ours that act on nothing of the call.
        ("https://example.org/lago-images build", "https://example.org/lago-images build"),
        ("old-lago-images build", "old-lago-images build"),
        ("make one: lago-images init", "make one: lago-images init"),
        ("lago-images builds", "lago-images builds"),
        ("the image build failed", "the image build failed"),
    ],
)
def test_commands_in_a_text_get_the_options_of_the_call(text, expected):
    assert completed(text, "specs", "a b") == expected
    assert completed(expected, "specs", "a b") == expected


def test_a_call_without_options_leaves_hints_as_they_are():
    text = "lago-images repo list --state any shows every image"
    assert completed(text, None, None) == text


def test_a_bucket_is_not_named_to_build_which_writes_none():
    hint = "lago-images build one, or lago-images ci rebuild one"
    named = "lago-images build one, or lago-images --repository s3://b/p ci rebuild one"
    assert completed(hint, None, "s3://b/p") == named


def test_every_command_is_completed_but_those_that_know_no_repository():
    names = set(re.search(r"\?P<name>([\w|]+)", _COMMAND.pattern)[1].split("|"))
    assert set(main.lazy) - names == {"init", "cache", "completion", "man"}
