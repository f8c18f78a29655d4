import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.errors import RepositoryError
from lago_images.repository.rendering import sums

A, B = "a" * 64, "b" * 64
ONE = "images/debian-12/x86_64/b1/debian-12.qcow2.xz"
TWO = "images/debian-12-nfs/x86_64/b2/debian-12-nfs.qcow2.xz"

SEGMENT = st.builds(
    str.__add__, st.sampled_from("Az09"), st.text(alphabet="AZaz09-._", max_size=20)
)
PATHS = st.builds(lambda n, a, b: f"images/{n}/{a}/{b}/{n}.qcow2.xz", SEGMENT, SEGMENT, SEGMENT)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_the_checksum_file_is_rendered_to_the_byte():
    assert sums.render([(ONE, A), (TWO, B)]) == f"{B}  {TWO}\n{A}  {ONE}\n".encode()
    assert sums.render([]) == b""
    plain = ONE.removesuffix(".xz")
    assert sums.render([(ONE, A), (plain, B)]) == f"{B}  {plain}\n{A}  {ONE}\n".encode()


@given(st.dictionaries(PATHS, DIGESTS, max_size=5))
def test_a_rendered_checksum_file_is_read_back(paths):
    assert dict(sums.parse(sums.render(paths.items()), "x")) == paths


@pytest.mark.parametrize(
    "path",
    [
        "builds/n/a/b/n.qcow2.xz",
        "images/../n.qcow2.xz",
        "images/./n.qcow2.xz",
        "images//n.qcow2.xz",
        "/images/n.qcow2.xz",
        "images/n.qcow2",
        "images/n/a/b/n.qcow2.hash",
        "images/n\n.qcow2.xz",
        "images/n\\n.qcow2.xz",
        "images/n n.qcow2.xz",
        "images/\udc80.qcow2.xz",
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(RepositoryError, match=r"SHA256SUMS to be written:1: "):
        sums.render([(path, A)])


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "a" * 65, f"\\{A}"])
def test_other_digests_are_refused(digest):
    with pytest.raises(RepositoryError):
        sums.render([(ONE, digest)])


def test_a_repeated_path_is_refused():
    with pytest.raises(RepositoryError, match="twice"):
        sums.render([(ONE, A), (ONE, B)])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{A}  {ONE}", 1),
        (f"{A} *{ONE}\n", 1),
        (f"{A} {ONE}\n", 1),
        (f"{A}  {ONE}\r\n", 1),
        (f"{A}  {ONE}\n\n", 2),
        (f"# sums\n{A}  {ONE}\n", 1),
        (f"{A}  {ONE}\n{B}  {TWO}\n", 2),
        (f"{B}  {TWO}\n{A}  {ONE}\n{A}  {ONE}\n", 3),
    ],
)
def test_an_invalid_line_is_refused_with_its_number(text, line):
    with pytest.raises(RepositoryError) as caught:
        sums.parse(text.encode(), "SHA256SUMS")
    assert caught.value.message.startswith(f"SHA256SUMS:{line}: ")


def test_a_checksum_file_that_is_not_utf_8_is_refused():
    with pytest.raises(RepositoryError, match="SHA256SUMS:1: "):
        sums.parse(b"\xff\xfe\n", "SHA256SUMS")
