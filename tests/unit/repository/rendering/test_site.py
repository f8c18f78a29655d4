from pathlib import Path

import pytest

from lago_images.errors import SettingsError
from lago_images.repository.rendering.site import Site, site_of
from lago_images.settings import Settings


def test_a_directory_has_the_older_tools_base_url():
    assert site_of(Settings(), "/srv/image-repo") == Site(
        name="test", base_url="http://127.0.0.1:8181"
    )


def test_a_bucket_needs_a_base_url():
    with pytest.raises(SettingsError, match="base-url is not set") as caught:
        site_of(Settings(), "s3://bucket/repo")
    assert "LAGO_IMAGES_BASE_URL" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["https://h/r", "https://h:8443/r/", "file:///srv/repo", "http://[::1]:80/a%20b"]
)
def test_usable_base_urls_are_accepted(url):
    assert site_of(Settings(base_url=url), "s3://b").base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["h/r", "ftp://h/r", "http://", "http://h/a b", "http://h/$(x)", "http://h/'", "http://h/?a=b",
     "javascript:alert(1)", "http://h/\nx", "http://h/<b>"],
)  # fmt: skip
def test_urls_that_could_end_a_pasted_command_are_refused(url):
    with pytest.raises(SettingsError, match="base-url must be"):
        site_of(Settings(base_url=url), "/dir")


@pytest.mark.parametrize("name", ["a/b", "a\nb", "\x1b[31m"])
def test_a_name_that_lago_cannot_use_as_a_file_name_is_refused(name):
    with pytest.raises(SettingsError, match="name must be"):
        site_of(Settings(name=name, folder=Path()), "/dir")
