"""The published JSON Schemas say what is written, and what is read."""

import json

import pytest
from jsonschema import Draft202012Validator

from lago_images.jobs import results
from lago_images.planning import formats
from lago_images.repository.rendering.render import render
from tests.support.catalogue import large_state
from tests.support.ci import built, failed, plan, planned
from tests.support.handmade import SITE, manifest, release
from tests.support.schemas import DOCUMENTS, FOLDER, rendered

RENDERED = render(large_state(20, 3), SITE)
WRITTEN: dict[str, str | bytes] = {
    "manifest": manifest().to_json(),
    "release": release().to_json(),
    "plan": formats.to_json(plan(planned("one"), planned("two"))),
    "results": results.dump([built("a"), failed("b")]),
    "images": RENDERED.files["images.json"],
    "latest": RENDERED.pages["latest/debian13-base.x86_64.json"].render(),
}


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{name}.schema.json").read_bytes()))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_published_schema_is_that_of_the_code(name):
    published = (FOLDER / f"{name}.schema.json").read_text()
    assert published == rendered(DOCUMENTS[name]), "python -m tests.support.schemas"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_as_it_is_written_is_valid(name):
    Draft202012Validator.check_schema(validator(name).schema)
    validator(name).validate(json.loads(WRITTEN[name]))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_another_schema_and_unknown_and_missing_keys_are_not(name):
    plain = json.loads(WRITTEN[name])
    assert not validator(name).is_valid(plain | {"schema": DOCUMENTS[name].SCHEMA + 1})
    assert not validator(name).is_valid(plain | {"more": 1})
    for key in validator(name).schema["$defs"][DOCUMENTS[name].__name__]["required"]:
        assert not validator(name).is_valid({k: v for k, v in plain.items() if k != key})


def test_a_value_that_the_reader_refuses_is_not():
    plain = json.loads(WRITTEN["manifest"])
    for path, value in (("sha1", "x"), ("size", 0), ("format", "vmdk"), ("sha512", "a" * 127)):
        assert not validator("manifest").is_valid(plain | {"disk": plain["disk"] | {path: value}})
