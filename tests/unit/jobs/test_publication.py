import pytest

from lago_images.errors import RepositoryError
from lago_images.jobs import results
from lago_images.planning.model import Action
from tests.support.ci import plan, planned

MADE = plan(planned("one", action=Action.BUILD), planned("two", action=Action.KEEP))


def test_a_record_is_read_for_its_own_plan_only(tmp_path):
    told = results.stopped(MADE, "the key has expired")
    results.write_fates(tmp_path / "results", MADE, told)
    assert results.read_fates(tmp_path / "results", MADE) == {"one": told[0]}
    assert results.read_fates(tmp_path / "results", plan(made=1)) is None
    assert results.read_fates(tmp_path, MADE) is None


def test_a_link_in_place_of_the_record_is_replaced_and_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / results.FILE).symlink_to(precious)
    results.write_fates(tmp_path, MADE, [])
    assert precious.read_text() == "keep"
    assert results.read_fates(tmp_path, MADE) == {}


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "[]", '{"schema": 1}', '{"schema": 2}'])
def test_an_invalid_record_is_refused(tmp_path, text):
    (tmp_path / results.FILE).write_text(text)
    with pytest.raises(RepositoryError, match=results.FILE):
        results.read_fates(tmp_path, MADE)
