import pytest

from lago_images.console import human_size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (116_300_000, "110.9 MiB"),
        (6 * 2**30, "6.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_sizes_are_in_powers_of_1024_as_specs_count_them(count, text):
    assert human_size(count) == text
