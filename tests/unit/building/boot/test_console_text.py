"""The text that an image without an agent is judged by."""

import pytest

from lago_images.building.boot.console_text import shows


@pytest.mark.parametrize(
    ("written", "text", "found"),
    [
        (b"\r\ncirros login: ", "cirros login:", True),
        (
            b"[\x1b[0;32m  OK  \x1b[0m] Reached \x1b[0;1;39mMulti-User\x1b[0m.",
            "Reached Multi",
            True,
        ),
        ("Grüße".encode(), "Grüße", True),
        (b"a-b", "a.b", False),
        (b"login", "login:", False),
    ],
)
def test_plain_text_is_found_without_its_colours(tmp_path, written, text, found):
    console = tmp_path / "console.log"
    assert not shows(console, text)
    console.write_bytes(written)
    assert shows(console, text) is found
