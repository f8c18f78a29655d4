"""Where a spec's signed list and file are looked for."""

from lago_images.building.bases.signed_list import Mirror, mirrors
from tests.support.builders import spec

BASE = "simple:https://a.example/f/44/Cloud-44-*.qcow2"


def test_a_relative_list_is_read_from_every_mirror():
    found = mirrors(
        spec(
            "f",
            BASE,
            **{
                "base-checksums": "https://a.example/f/44/CHECKSUM",
                "base-mirror": "https://b.example/pub/44  https://c.example/",
            },
        )
    )
    assert found == (
        "Cloud-44-*.qcow2",
        tuple(
            Mirror(folder=folder, checksums=folder + "CHECKSUM")
            for folder in (
                "https://a.example/f/44/",
                "https://b.example/pub/44/",
                "https://c.example/",
            )
        ),
    )


def test_a_list_with_its_own_url_is_the_same_for_every_mirror():
    elsewhere = "https://a.example/sums/44"
    properties = {"base-checksums": elsewhere, "base-mirror": "https://b.example/44"}
    _, every = mirrors(spec("f", BASE, **properties))
    assert [each.checksums for each in every] == [elsewhere, elsewhere]


def test_a_percent_encoded_name_is_decoded_for_the_list():
    pattern, _ = mirrors(
        spec("f", "simple:https://a/x/a%20b-*.img", **{"base-checksums": "https://a/x/S"})
    )
    assert pattern == "a b-*.img"
