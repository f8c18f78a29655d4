"""What readers of an image's page see of its spec."""

from lago_images.repository.rendering import spec_text
from lago_images.specs.parse import parse

TEXT = """\
# Ask Ann of the build team before touching this.
#name=A <b>title</b>
#base=simple:disk.raw
#osinfo=debian12
#distro=debian
#arch=x86_64
#version=1
install nginx
run-command echo one \\
  two
password ann:password:hunter2
selinux-relabel
"""


def shown(text):
    spec, problems = parse(text, name="web", path="image-specs/web")
    assert problems == []
    return spec_text.render(spec)


def test_the_text_is_read_as_the_same_spec_without_comments_and_passwords():
    text = shown(TEXT).decode()
    assert "Ann of the build team" not in text
    assert "hunter2" not in text
    assert "password ann:password:…\n" in text
    again, _ = parse(text, name="web", path="image-specs/web")
    spec, _ = parse(TEXT, name="web", path="image-specs/web")
    assert again.properties == spec.properties
    assert [(each.name, each.argument) for each in again.operations if each.name != "password"] == [
        (each.name, each.argument) for each in spec.operations if each.name != "password"
    ]


def test_a_spec_of_any_length_gives_whole_lines_and_says_what_is_left_out():
    head = TEXT.partition("install")[0]
    data = shown(head + "".join(f"run-command echo {'é' * 50} {i}\n" for i in range(2000)))
    assert len(data) <= spec_text.LARGEST
    *lines, last = data.decode().splitlines()
    assert last.startswith("# … ")
    assert last.endswith(" bytes more")
    assert all(line.startswith(("#", "run-command echo é")) for line in lines)


def test_a_command_of_several_lines_is_never_cut_within():
    head = shown(TEXT.partition("install")[0]).decode()
    longest = "run-command echo \\\n" + "one \\\n" * 20000 + "two\n"
    data = shown(head + "run-command echo first\n" + longest).decode()
    assert data.startswith(head + "run-command echo first\n# … ")


def test_the_largest_text_is_shown_whole():
    head = shown(TEXT.partition("install")[0]).decode()
    room = spec_text.LARGEST - len(head.encode()) - len("run-command \n")
    text = f"{head}run-command {'x' * room}\n"
    assert shown(text) == text.encode()


PROPERTIES = "#name=A\n#base=simple:x\n"


def test_commands_are_compared_line_by_line_and_properties_are_not():
    old = f"{PROPERTIES}install nginx\nwrite /etc/motd:one\\\n# two\\\nthree\nupdate\n"
    new = f"{PROPERTIES}#version=2\ninstall nginx\nwrite /etc/motd:one\\\n# 2\\\nthree\nupdate\n"
    assert spec_text.command_changes(old, old) == ()
    assert spec_text.command_changes(old, new) == (
        "@@ -2,3 +2,3 @@",
        " write /etc/motd:one\\",
        "-# two\\",
        "+# 2\\",
        " three",
    )
    assert spec_text.command_changes(PROPERTIES, f"{PROPERTIES}update\n") == (
        "@@ -0,0 +1 @@",
        "+update",
    )
