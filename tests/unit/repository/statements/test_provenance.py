import copy
import json
import re
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from lago_images.errors import RepositoryError
from lago_images.repository.records.manifest import BaseRecord, canonical
from lago_images.repository.statements import provenance
from lago_images.repository.statements.provenance import BUILD_TYPE, Origin, public_url
from tests.support.builders import manifest, with_qcow2

ROOT = Path(__file__).resolve().parents[4]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ORIGIN = Origin(
    spec="image-specs/debian-12",
    repository="https://git.example.org/specs",
    builder="https://github.com/example/specs/.github/workflows/images.yml@refs/heads/main",
    run="https://github.com/example/specs/actions/runs/7",
    settings={"compression-level": "2"},
    byproducts={"manifest.json": "a" * 64, "packages.txt": "b" * 64},
)


def build(**more):
    return manifest(**{"commit": COMMIT, "tools": {"python": "3.11.2"}, **more})


def made(origin=ORIGIN, **more):
    return provenance.of(build(**more), origin)


def plain(**more):
    return json.loads(made(**more).to_json())


def test_a_qcow2_that_is_public_is_a_subject_of_its_own():
    built = with_qcow2(build())
    stated = provenance.of(built, ORIGIN, also=["qcow2"])
    assert json.loads(stated.to_json())["subject"][1:] == [
        {"name": "debian-12.qcow2", "digest": {"sha256": built.also["qcow2"].sha256}}
    ]
    assert provenance.parse(stated.to_json(), "it") == stated
    # One that stays staged is none.
    assert provenance.of(built, ORIGIN) == made()


def test_a_statement_is_rendered_in_full():
    disk = build().disk
    assert plain(properties={"osinfo": "debian12"}) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "debian-12.qcow2.xz",
                "digest": {"sha256": disk.sha256, "sha512": disk.sha512},
            }
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": "https://git.example.org/specs",
                    "commit": COMMIT,
                    "dirty": False,
                    "spec": "image-specs/debian-12",
                    "properties": {"osinfo": "debian12"},
                },
                "internalParameters": {
                    "build": "b1",
                    "fingerprint": "sha256:f1",
                    "settings": {"compression-level": "2"},
                },
                "resolvedDependencies": [
                    {
                        "name": "specs",
                        "uri": f"git+https://git.example.org/specs@{COMMIT}",
                        "digest": {"gitCommit": COMMIT},
                    },
                    {
                        "name": "bootstrap:bookworm",
                        "digest": {"sha256": "0" * 64},
                        "annotations": {"detail": ""},
                    },
                ],
            },
            "runDetails": {
                "builder": {"id": ORIGIN.builder, "version": {"python": "3.11.2"}},
                "metadata": {
                    "invocationId": "https://github.com/example/specs/actions/runs/7",
                    "startedOn": "2023-11-14T22:12:20Z",
                    "finishedOn": "2023-11-14T22:13:20Z",
                },
                "byproducts": [
                    {"name": "manifest.json", "digest": {"sha256": "a" * 64}},
                    {"name": "packages.txt", "digest": {"sha256": "b" * 64}},
                ],
            },
        },
    }


def test_the_build_type_is_documented():
    page, anchor = re.search(r"/(docs/[^#]+)#(.+)", BUILD_TYPE).groups()
    text = (ROOT / page).read_text()
    headings = re.findall(r"^## (.+)", text, re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
    definition = plain()["predicate"]["buildDefinition"]
    for name in ("externalParameters", "internalParameters"):
        for key in definition[name]:
            assert re.search(rf"`{name}\.(?:[a-z]+`, `\.)?{key}`", text), key


def test_the_in_toto_library_reads_a_statement():
    """Fields that in-toto and SLSA do not have are errors to it."""
    statement = json_format.Parse(made().to_json(), statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    predicate = json.dumps(plain()["predicate"])
    read = json_format.Parse(predicate, provenance_pb2.Provenance())
    assert read.build_definition.resolved_dependencies[0].digest["gitCommit"] == COMMIT
    assert read.run_details.metadata.finished_on.ToSeconds() == build().created
    unknown = json.dumps({**plain()["predicate"], "materials": []})
    with pytest.raises(json_format.ParseError):
        json_format.Parse(unknown, provenance_pb2.Provenance())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"dirty": True},
        {"commit": "unknown"},
        {"commit": "a" * 64},
        {"origin": Origin(spec="s", repository="", builder="urn:b")},
        {"base": BaseRecord(ref="layer:b", digest="sha512:" + "1" * 128, detail="more")},
        {"properties": {"name": "Debian® 12"}, "tools": {}},
    ],
)
def test_a_written_statement_is_read_back(more):
    one = made(**more)
    assert provenance.parse(one.to_json(), "x") == one
    assert provenance.parse(one.to_json(), "x").to_json() == one.to_json()


def test_outside_git_no_commit_is_named():
    [base] = plain(commit="unknown")["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert base["name"] == "bootstrap:bookworm"


def test_an_unknown_run_is_named_by_its_build():
    statement = plain(origin=Origin(spec="s", repository="", builder="urn:b"))
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == "b1"


def places(value, path=()):
    """Every place in a document, as paths of keys."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inside:
        yield (*path, key)
        if isinstance(one, dict | list):
            yield from places(one, (*path, key))


def changed(document, path, change, dump=canonical):
    other = copy.deepcopy(document)
    inside = other
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1])
    return dump(other)


def refused(data):
    with pytest.raises(RepositoryError, match=r"^of x is no statement of provenance") as caught:
        provenance.parse(data, "of x")
    return caught.value


# Empty, a map of texts may lack any of them.
FREE = {"properties", "settings", "version", "byproducts"}


def test_missing_fields_are_reported():
    data = changed(plain(), ("subject", 0, "name"), lambda inside, key: inside.pop(key))
    assert refused(data).message.endswith(": it has no subject.0.name")


def test_no_field_may_be_missing():
    document = plain()
    required = [path for path in places(document) if not FREE & set(map(str, path[:-1]))]
    assert len(required) > 30
    for path in required:
        refused(changed(document, path, lambda inside, key: inside.pop(key)))


@pytest.mark.parametrize("value", [None, 7, [], {}, "\ud800", [{}]])
def test_no_field_may_have_another_type(value):
    document = plain(properties={"osinfo": "debian12"})
    assert escaped(document) == canonical(document)
    for path in places(document):
        if path[-1] in FREE and value in ([], {}):
            continue
        refused(
            changed(document, path, lambda inside, key: inside.__setitem__(key, value), escaped)
        )


def escaped(document):
    """As ``canonical``, also for text that is not whole."""
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def test_no_field_may_be_added():
    document = plain()

    def add(inside, key):
        more = inside[key]
        more.append("more") if isinstance(more, list) else more.update(more=7)

    for path in [path for path in places(document) if isinstance(path[-1], str)]:
        if isinstance(_at(document, path), dict | list):
            refused(changed(document, path, add))
    refused(canonical({**document, "more": ""}))


def _at(document, path):
    for key in path:
        document = document[key]
    return document


def test_other_bytes_of_the_same_statement_are_refused():
    assert refused(json.dumps(plain()).encode()).hint is not None
    twice = made().to_json().replace(b'"_type":', b'"_type": "", "_type":')
    refused(twice)


def test_an_error_message_is_bounded_in_length():
    long = "x" * 100_000
    started = ("predicate", "runDetails", "metadata", "startedOn")
    for path, value in [(started[:2], [long]), (("subject", 0, "name"), [long]), (started, long)]:
        data = changed(plain(), path, lambda inside, key, v=value: inside.__setitem__(key, v))
        assert len(refused(data).message) < 1000
    builder = Origin(spec="s", repository="", builder=long)
    for more in ({"commit": long}, {"origin": builder}, {"base": BaseRecord(ref="b", digest=long)}):
        with pytest.raises(RepositoryError) as caught:
            made(**more).to_json()
        assert len(caught.value.message) < 1000


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'"x"'])
def test_an_invalid_statement_is_refused(data):
    refused(data)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"base": BaseRecord(ref="layer:b", digest="build:b1")}, "layer:b is 'build:b1'"),
        ({"base": BaseRecord(ref="layer:b", digest="sha256:0")}, "layer:b is 'sha256:0'"),
        ({"commit": "main"}, "the commit 'main'"),
        ({"commit": COMMIT + "\n"}, "the commit"),
        ({"created": 2**61}, "in no year"),
        ({"origin": Origin(spec="s", repository="", builder="me")}, "the builder 'me' is no URI"),
        (
            {"origin": Origin(spec="s", repository="", builder="urn:b", byproducts={"f": "0"})},
            "the digest of f",
        ),
    ],
)
def test_a_statement_with_meaningless_identifiers_is_not_written(more, what):
    with pytest.raises(RepositoryError, match=what):
        made(**more).to_json()


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/o/r.git", "https://github.com/o/r.git"),
        ("https://user:secret@github.com/o/r", "https://github.com/o/r"),
        ("https://x-access-token:ghs_1@github.com:8443/o/r", "https://github.com:8443/o/r"),
        ("https://host/o/r?private_token=secret#secret", "https://host/o/r"),
        ("ssh://git@host:2222/o/r", "ssh://host:2222/o/r"),
        ("git@github.com:o/r.git", "ssh://github.com/o/r.git"),
        ("host:/srv/specs", "ssh://host/srv/specs"),
        ("git://host/o/r", "git://host/o/r"),
        ("https://[::1]:80/r", "https://[::1]:80/r"),
        ("/srv/specs", ""),
        ("../specs", ""),
        ("file:///srv/specs", ""),
        ("https://[host/r", ""),
        ("https:///r", ""),
        ("", ""),
    ],
)
def test_the_url_of_a_remote_is_published_without_secrets(remote, url):
    assert public_url(remote) == url
