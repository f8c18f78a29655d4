import pytest

from lago_images.ci import publication
from lago_images.errors import RepositoryError
from lago_images.planning.model import Action
from tests.support.ci import plan, planned

MADE = plan(planned("one", action=Action.BUILD), planned("two", action=Action.KEEP))


def test_what_is_written_is_read_for_the_same_plan_only(tmp_path):
    told = publication.stopped(MADE, "the key has expired")
    publication.write(tmp_path / "results", MADE, told)
    assert publication.read(tmp_path / "results", MADE) == {"one": told[0]}
    assert publication.read(tmp_path / "results", plan(made=1)) is None
    assert publication.read(tmp_path, MADE) is None


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / publication.FILE).symlink_to(precious)
    publication.write(tmp_path, MADE, [])
    assert precious.read_text() == "keep"
    assert publication.read(tmp_path, MADE) == {}


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "[]", '{"schema": 1}', '{"schema": 2}'])
def test_what_tells_of_no_publication_is_refused(tmp_path, text):
    (tmp_path / publication.FILE).write_text(text)
    with pytest.raises(RepositoryError, match=publication.FILE):
        publication.read(tmp_path, MADE)
