"""What stores write as moments: ISO 8601 in listings, RFC 7231 in headers, some numbers."""

from datetime import UTC, datetime

import pytest

from lago_images.storage.s3.bucket import _moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00.000Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T13:00:00.000000+01:00",
        "Sat, 31 Jan 2026 12:00:00 GMT",
        "1769860800",
    ],
)
def test_time_stamps_of_all_stores_are_parsed(text):
    assert _moment(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_an_invalid_time_stamp_is_refused():
    with pytest.raises(ValueError, match="Invalid timestamp"):
        _moment("yesterday or so")
