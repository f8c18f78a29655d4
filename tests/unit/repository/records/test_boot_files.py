from hypothesis import given
from hypothesis import strategies as st

from lago_images.repository.records.boot_files import (
    BootFile,
    BootFileChange,
    BootFiles,
    compare,
    parse,
    render,
)

_NAMES = st.from_regex(r"/boot/[a-c]( ?[a-c.])?(/[a-c])?", fullmatch=True)
_FILES = st.builds(
    BootFile,
    path=_NAMES,
    size=st.integers(0, 2**40),
    sha256=st.sampled_from(["0" * 64, "af" * 32]),
)
_LISTS = st.builds(
    BootFiles.of,
    st.lists(_FILES, max_size=12, unique_by=lambda each: each.path),
    st.lists(_NAMES, max_size=2),
)


def file(path, content="a", size=1):
    return BootFile(path=path, size=size, sha256=content * 64)


@given(_LISTS)
def test_a_rendered_list_is_read_back(listed):
    assert parse(render(listed)) == listed


@given(_LISTS, _LISTS)
def test_a_difference_leads_from_the_old_to_the_new(old, new):
    changes = compare(old, new)
    seen = BootFiles.of(old.files, changes.unread), BootFiles.of(new.files, changes.unread)
    before, after = ({each.path: each.sha256 for each in side.files} for side in seen)
    changed = {each.path for each in changes.changed}
    assert all(before[path] != after[path] for path in changed)
    gone = {each.path for each in changes.removed} | changed
    result = {path: digest for path, digest in before.items() if path not in gone}
    result |= {each.path: each.sha256 for each in changes.added}
    result |= {path: after[path] for path in changed}
    assert result == after
    assert bool(changes) == (before != after)


def test_a_file_of_the_same_size_and_another_content_has_changed():
    old, new = (BootFiles.of([file("/boot/vmlinuz", content)], ()) for content in "ab")
    changes = compare(old, new)
    assert changes.changed == (BootFileChange(path="/boot/vmlinuz", old_size=1, new_size=1),)


def test_what_was_not_read_in_one_of_two_is_neither_added_nor_removed():
    esp = [file("/boot/efi/EFI/BOOT/BOOTX64.EFI"), file("/boot/efi-tools")]
    old, new = BootFiles.of(esp, ()), BootFiles.of([], ["/boot/efi"])
    assert compare(old, new).removed == (file("/boot/efi-tools"),)
    assert compare(new, old).added == (file("/boot/efi-tools"),)
    assert compare(old, new).unread == ("/boot/efi",)


def test_a_list_that_is_not_known_is_compared_with_nothing():
    assert compare(None, BootFiles.of([], ())) is None
    assert compare(BootFiles.of([], ()), None) is None


def test_lines_of_another_form_are_left_out():
    good = f"{'a' * 64} 1 /boot/a b"
    bad = ["x 1 /boot/c", f"{'a' * 64} 1 boot/c", f"{'a' * 64} 1 /boot/\x1b[31m", "- - /x\x07", ""]
    assert parse("\n".join([*bad, good])) == BootFiles.of([file("/boot/a b")], ())
