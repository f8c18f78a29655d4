"""What to do in a folder without specs."""

from pathlib import Path

from lago_images.specs.folder import without_specs


def test_where_nothing_is_an_example_is_offered(tmp_path):
    assert without_specs(tmp_path).startswith("there are no specs here: lago-images init makes")


def test_the_folders_below_that_have_settings_are_named_from_where_one_is(tmp_path, monkeypatch):
    for name in ("servers", "two words"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lago-images.toml").touch()
    (tmp_path / "no-settings").mkdir()
    monkeypatch.chdir(tmp_path)
    told = without_specs(Path(tmp_path))
    assert "-C servers" in told
    assert "-C 'two words'" in told
    assert "no-settings" not in told


def test_of_many_folders_some_are_named(tmp_path):
    for number in range(9):
        (tmp_path / f"lab-{number}").mkdir()
        (tmp_path / f"lab-{number}/lago-images.toml").touch()
    told = without_specs(tmp_path)
    assert ("lab-4" in told, "lab-8" in told) == (True, False)
