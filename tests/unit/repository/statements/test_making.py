"""The signatures themselves are in tests/real/test_statements.py and in functional tests."""

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from lago_images.errors import RepositoryError
from lago_images.repository.rendering.signing import Signer
from lago_images.repository.statements import envelope, provenance, sbom
from lago_images.repository.statements.making import BUILDER, Statements
from lago_images.repository.statements.provenance import Origin
from tests.support.builders import files_of, manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MADE = manifest(commit=COMMIT)
ORIGIN = Origin(spec="image-specs/debian-12", repository="", builder=BUILDER, run="https://ci/7")
SIGNER: Any = SimpleNamespace(keys=("a key",))


def small(made):
    return {name: data for name, data in files_of(made).items() if not name.endswith(".xz")}


def made_of(made, signer, files=None):
    return Statements(signer=signer, origin=ORIGIN).make(made, files or small(made))


@pytest.fixture
def unsigned_envelopes(monkeypatch):
    monkeypatch.setattr(envelope, "sign", lambda payload, _signer: payload)


def test_an_unsigned_repository_has_only_the_sbom():
    made = made_of(MADE, Signer())
    assert made == {"sbom.cdx.json": sbom.render(MADE, small(MADE)["packages.txt"])}


def test_an_image_with_unknown_packages_has_an_sbom():
    unknown = manifest(packages=None)
    files = {n: data for n, data in small(unknown).items() if n != "packages.txt"}
    made = made_of(unknown, Signer(), files)
    assert made == {"sbom.cdx.json": sbom.render(unknown, None)}


@pytest.mark.usefixtures("unsigned_envelopes")
def test_the_provenance_names_every_other_file_by_its_digest():
    files, made = small(MADE), made_of(MADE, SIGNER)
    stated = provenance.parse(made["provenance.json"], "it")
    beside = {**files, "sbom.cdx.json": made["sbom.cdx.json"]}
    assert stated.origin.byproducts == {
        name: hashlib.sha256(data).hexdigest() for name, data in beside.items()
    }
    assert set(stated.origin.byproducts) > {"manifest.json", "packages.txt", "sbom.cdx.json"}
    assert (stated.sha256, stated.commit) == (MADE.disk.sha256, COMMIT)
    assert (stated.origin.builder, stated.origin.run) == (BUILDER, "https://ci/7")


@pytest.mark.usefixtures("unsigned_envelopes")
def test_a_build_outside_git_has_a_statement():
    made = made_of(manifest(commit="unknown"), SIGNER)
    assert provenance.parse(made["provenance.json"], "it").commit == "unknown"


@pytest.mark.parametrize("packages", [b"", b"bash 5.2 amd64\nsh 1 all\n", b"<html>\n"])
def test_a_package_list_other_than_the_manifests_is_refused(packages):
    with pytest.raises(RepositoryError, match=r"packages\.txt"):
        made_of(MADE, Signer(), {**small(MADE), "packages.txt": packages})
