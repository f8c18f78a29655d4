"""Names and patterns of images, and what is said of those that mean none."""

import pytest

from lago_images.errors import UsageError
from lago_images.specs.choosing import chosen, did_you_mean

WEB = [f"web-{number:02}" for number in range(1, 41)]
KNOWN = [*WEB, "db-primary", "db-replica", "debian-12", "debian-12-nfs"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("debain-12", "did you mean 'debian-12'?"),
        ("web-1", "did you mean 'web-01'?"),
        ("Web_07", "did you mean 'web-07'?"),
        ("nfs", "did you mean 'debian-12-nfs'?"),
        ("db", "did you mean 'db-primary' or 'db-replica'?"),
        ("web-41", "40 names begin with 'web-': web-01, web-02, … web-40; look"),
        ("web", "40 names begin with 'web-': web-01, web-02, … web-40; look"),
        ("wbe-*", "40 names begin with 'web-': web-01, web-02, … web-40; look"),
        ("zzz", "look"),
        ("w", "look"),
        ("", "look"),
    ],
)
def test_an_unknown_name_gets_the_names_that_it_may_stand_for(name, hint):
    assert did_you_mean(name, KNOWN, "look") == hint


def test_many_names_without_a_common_beginning_are_counted():
    known = ["axxxx", "bxxxx", "cxxxx", "dxxxx"]
    assert did_you_mean("xxxx", known) == "4 names are as near: axxxx, bxxxx, … dxxxx"


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["web-0?"], WEB[:9]),
        (["web-1[02]", "web-10", "debian-12"], ["web-10", "web-12", "debian-12"]),
        (["debian-12"], ["debian-12"]),
        (["*"], sorted(KNOWN)),
        ([], []),
    ],
)
def test_names_and_patterns_mean_specs_each_once(patterns, names):
    assert chosen(patterns, KNOWN, otherwise="look") == names


@pytest.mark.parametrize(
    ("patterns", "message", "hint"),
    [
        (["debain-12"], "there is no spec 'debain-12'", "did you mean 'debian-12'?"),
        (["web-01", "wob*"], "no spec matches 'wob*'", "look"),
        (
            ["debain-12", "x*"],
            "there is no spec 'debain-12' and no spec matches 'x*'",
            "'debain-12': did you mean 'debian-12'?",
        ),
        (["1", "2", "3", "4"], "there is no spec '1', '2', '3' and 1 more", "look"),
    ],
)
def test_what_means_no_spec_is_refused(patterns, message, hint):
    with pytest.raises(UsageError) as caught:
        chosen(patterns, KNOWN, otherwise="look")
    assert (caught.value.message, caught.value.hint) == (message, hint)
