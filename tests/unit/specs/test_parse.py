"""One case for each rule of the parser, with the exact message."""

import sys
import unicodedata

import pytest

from lago_images.specs.edit_command import REFUSAL, is_harmless
from lago_images.specs.model import Base, BaseKind, Operation
from lago_images.specs.parse import KEY, parse
from lago_images.specs.properties import size_bytes, words

HEADER = "#base=libguestfs:centosstream-9\n#arch=x86_64\n#distro=el9\n"
SHA = "sha256:" + "0" * 64


def read(text, name="a"):
    spec, problems = parse(text, name=name, path=f"image-specs/{name}")
    return spec, [(problem.line, problem.what) for problem in problems]


def good(text):
    spec, problems = read(text)
    assert problems == []
    return spec


def with_base(base, *lines):
    return "\n".join([f"#base={base}", "#arch=x86_64", "#distro=debian", *lines, ""])


def test_a_complete_spec_is_parsed():
    spec = good(
        "# A comment\n#name=lago Fedora® 22\n#base=libguestfs:fedora-22\n#arch=x86_64\n"
        "#distro=fc22\n#anything=else\n\nroot-password password:123456\nupdate\n"
        "install \\\n    one, two,\\\n    three\nwrite /etc/x:a\\\n# b\\\n\\\n\nrun-command  id\n"
    )
    assert (spec.name, spec.path, spec.arch) == ("a", "image-specs/a", "x86_64")
    assert spec.base == Base(kind=BaseKind.LIBGUESTFS, name="fedora-22", line=3)
    assert spec.properties == {
        "name": "lago Fedora® 22",
        "base": "libguestfs:fedora-22",
        "arch": "x86_64",
        "distro": "fc22",
        "anything": "else",
    }
    assert spec.lines == {"name": 2, "base": 3, "arch": 4, "distro": 5, "anything": 6}
    assert spec.operations == (
        Operation(name="root-password", argument="password:123456", line=8),
        Operation(name="update", argument="", line=9),
        Operation(name="install", argument="one,two,three", line=10),
        Operation(name="write", argument="/etc/x:a\n# b\n\n", line=13),
        Operation(name="run-command", argument="id", line=17),
    )


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("el7-base", Base(kind=BaseKind.LAYER, name="el7-base", line=1)),
        ("layer:el7-base", Base(kind=BaseKind.LAYER, name="el7-base", line=1)),
        ("simple:disks/a.qcow2", Base(kind=BaseKind.SIMPLE, name="disks/a.qcow2", line=1)),
        ("bootstrap:debian-13", Base(kind=BaseKind.BOOTSTRAP, name="debian-13", line=1)),
    ],
)
def test_every_kind_of_base_is_parsed(text, base):
    assert good(with_base(text)).base == base


def test_properties_may_follow_commands():
    assert good(HEADER + "update\n#version=v1\n").properties["version"] == "v1"


@pytest.mark.parametrize(
    "comment",
    ["# foo = bar", "#!/bin/sh", "#edit /x:s/a=b/c/", "#", "#=x", "  #vesion=1", "# size=6G"],
)
def test_comments_are_not_taken_for_properties(comment):
    assert set(good(HEADER + comment + "\n").properties) == {"base", "arch", "distro"}


def test_blanks_around_the_equals_sign_are_stripped():
    assert good(HEADER + "#version =  v1 \n").properties["version"] == "v1"


PROPERTIES = [
    ("#vesion=1", "unknown property 'vesion'; did you mean 'version'?"),
    (
        "#root_partition=/dev/sda1",
        "unknown property 'root_partition'; did you mean 'root-partition'?",
    ),
    ("#sise=6G", "unknown property 'sise'; did you mean 'size'?"),
    ("#szie=6G", "unknown property 'szie'; did you mean 'size'?"),
    ("#nmae=x", "unknown property 'nmae'; did you mean 'name'?"),
    ("#checksum=x", "unknown property 'checksum'; did you mean 'base-checksum'?"),
    ("#Name=x", "unknown property 'Name'; did you mean 'name'?"),
    ("#arch=x86_64", "arch stands before, in line 2"),
    ("#name=", "name must be some text, not ''"),
    ("#name=a\tb", "a tab in name"),
    ("#name=" + "x" * 1001, "name has 1001 characters, more than 1000"),
    (
        "#version=1 2",
        "version must be letters, digits and ._+- after a first letter or digit, not '1 2'",
    ),
    (
        "#osinfo=-x",
        "osinfo must be letters, digits and ._+- after a first letter or digit, not '-x'",
    ),
    ("#expand=sda1", "expand must be a device such as /dev/sda1, not 'sda1'"),
    ("#lvexpand=/dev/../x", "lvexpand must be a device such as /dev/sda1, not '/dev/../x'"),
    ("#root-partition=/dev/", "root-partition must be a device such as /dev/sda1, not '/dev/'"),
    (
        "#firmware=efi",
        "firmware must be bios, uefi, or both with a comma or blank between, not 'efi'",
    ),
    (
        "#firmware=bios bios",
        "firmware must be bios, uefi, or both with a comma or blank between, not 'bios bios'",
    ),
    ("#hidden=yes", "hidden must be true or false, not 'yes'"),
    ("#boot-test=maybe", "boot-test must be yes, no: REASON, or console:TEXT, not 'maybe'"),
    ("#size=6GB", "size must be a size from 1M to 64T such as 6G, not '6GB'"),
    ("#size=1K", "size must be a size from 1M to 64T such as 6G, not '1K'"),
    ("#size=99999T", "size must be a size from 1M to 64T such as 6G, not '99999T'"),
    ("#aliases=a/b", "aliases must be names with commas or blanks between them, not 'a/b'"),
    ("#packages=vim", "packages is for bootstrap: bases only"),
    ("#cloud-init=yes", "cloud-init is for bootstrap: bases only"),
    ("#mirror=http://example.org/debian", "mirror is for bootstrap: bases only"),
    ("#snapshot=20260101T000000Z", "snapshot is for bootstrap: bases only"),
    (f"#base-checksum={SHA}", "base-checksum is for simple: bases only"),
    ("#base-checksums=https://x/S", "base-checksums is for simple: bases only"),
    ("#base-key=k.asc", "base-key is for simple: bases only"),
    ("#base-mirror=https://x/", "base-mirror is for simple: bases only"),
]


@pytest.mark.parametrize(("line", "what"), PROPERTIES)
def test_invalid_properties_are_problems(line, what):
    assert read(HEADER + line + "\n")[1] == [(4, what)]


@pytest.mark.parametrize("key", ["site", "case", "user", "date", "mode", "test", "zone", "x", "id"])
def test_unknown_properties_are_kept(key):
    assert good(HEADER + f"#{key}=v\n").properties[key] == "v"


BOOTSTRAP = [
    ("#cloud-init=maybe", "cloud-init must be yes or no, not 'maybe'"),
    (
        "#expand=/dev/sda1",
        "expand is /dev/sda3 on this bootstrap: disk (with #firmware=bios it is /dev/sda1)",
    ),
    (
        "#root-partition=/dev/sda2",
        "root-partition is /dev/sda3 on this bootstrap: disk (with #firmware=bios it is /dev/sda1)",
    ),
    (
        "#packages=Vim",
        "packages must be Debian package names with commas or blanks between, not 'Vim'",
    ),
    ("#packages=,", "packages must be Debian package names with commas or blanks between, not ','"),
    (
        "#mirror=ftp://example.org/",
        (
            "mirror must be http or https URLs without a password, with blanks between, "
            "not 'ftp://example.org/'"
        ),
    ),
    (
        "#snapshot=20261301T000000Z",
        "snapshot must be a moment such as 20260131T120000Z, not '20261301T000000Z'",
    ),
    (
        "#snapshot=20260131T120000Z",
        "snapshot needs a mirror that keeps snapshots, a folder for each moment",
    ),
    (
        "#mirror=http://example.org/all",
        (
            "mirror does not end in /debian, so its security archive is not known: "
            "add that URL after a blank"
        ),
    ),
    (
        "#mirror=http://example.org/a http://example.org/b http://example.org/c",
        "mirror has more URLs than the archive's and its security archive's",
    ),
    (
        "#mirror=http://example.org/{snapshot}/debian",
        (
            "mirror must be http or https URLs without a password, with blanks between, "
            "not 'http://example.org/{snapshot}/debian'"
        ),
    ),
    (
        "#size=100M",
        "size must be a whole number of MiB, at least 512M, for a bootstrap: base",
    ),
    (
        "#size=1073741825",
        "size must be a whole number of MiB, at least 512M, for a bootstrap: base",
    ),
    ("#size=1K", "size must be a size from 1M to 64T such as 6G, not '1K'"),
]


@pytest.mark.parametrize(
    ("release", "arch", "makes"),
    [
        ("debian-11", "aarch64", "x86_64"),
        ("ubuntu-24.04", "aarch64", "x86_64"),
        ("debian-12", "ppc64le", "x86_64 and aarch64"),
    ],
)
def test_a_bootstrap_of_another_architecture_is_a_problem(release, arch, makes):
    text = with_base(f"bootstrap:{release}").replace("x86_64", arch)
    assert read(text)[1] == [(2, f"bootstrap: makes {release} for {makes} only")]


@pytest.mark.parametrize("base", ["bootstrap:debian-13", "libguestfs:x", "layer:x"])
@pytest.mark.parametrize("kinds", ["bios", "uefi bios"])
def test_no_arm_machine_has_a_bios(base, kinds):
    text = with_base(base, f"#firmware={kinds}").replace("x86_64", "aarch64")
    assert read(text)[1] == [(4, "no aarch64 machine has a BIOS")]
    assert good(text.replace(kinds, "uefi")).arch == "aarch64"


def test_the_root_partition_of_an_arm_bootstrap_follows_the_efi_partition():
    text = with_base("bootstrap:debian-13", "#expand=/dev/vda2", "#root-partition=/dev/vda2")
    assert good(text.replace("x86_64", "aarch64")).properties["expand"] == "/dev/vda2"
    wrong = with_base("bootstrap:debian-13", "#expand=/dev/sda3").replace("x86_64", "aarch64")
    assert read(wrong)[1] == [(4, "expand is /dev/sda2 on this bootstrap: disk")]


@pytest.mark.parametrize(("line", "what"), BOOTSTRAP)
def test_invalid_bootstrap_properties_are_problems(line, what):
    assert read(with_base("bootstrap:debian-12", line))[1] == [(4, what)]


def test_valid_bootstrap_properties_are_accepted():
    properties = {
        "packages": "vim, nfs-kernel-server libstdc++6",
        "mirror": "http://example.org/debian https://example.org:8443/security",
        "snapshot": "20260101T000000Z",
        "size": "512M",
    }
    lines = [f"#{key}={value}" for key, value in properties.items()]
    read_back = good(with_base("bootstrap:debian-12", *lines)).properties
    assert {key: read_back[key] for key in properties} == properties


BASES = [
    ("", "base must be libguestfs:…, layer:…, simple:… or bootstrap:…, not ''"),
    ("layer:", "layer: has no name after the colon"),
    (
        "libgestfs:x",
        (
            "unknown kind of base 'libgestfs', not one of libguestfs, layer, simple, bootstrap; "
            "did you mean 'libguestfs'?"
        ),
    ),
    ("https://x/y", "a disk at a URL is written base=simple:URL"),
    (
        "file:disks/x.img",
        "a disk's file is written base=simple:PATH, from the root of the repository",
    ),
    (
        "disks/x.img",
        (
            "'disks/x.img' cannot be the name of a spec; a disk's file is written "
            "base=simple:PATH, from the root of the repository"
        ),
    ),
    ("libguestfs:a b", "'a b' cannot be the name of a template of virt-builder"),
    ("layer:a b", "'a b' cannot be the name of a spec"),
    (
        "bootstrap:debain-12",
        (
            "bootstrap: knows debian-11, debian-12, debian-13, ubuntu-24.04, ubuntu-26.04, "
            "not 'debain-12'; did you mean 'debian-12'?"
        ),
    ),
    (
        "simple:https://x/y",
        (
            "a simple: base at a URL needs #base-checksum=sha256:…, or #base-checksums=URL and "
            "#base-key=FILE"
        ),
    ),
]


@pytest.mark.parametrize(("base", "what"), BASES)
def test_invalid_bases_are_problems(base, what):
    assert read(with_base(base))[1] == [(1, what)]


def test_a_password_in_a_url_is_refused_and_not_shown():
    text = with_base("simple:https://me:secret@x/y", f"#base-checksum={SHA}")
    what = "simple: takes an http or https URL without a password, or a path"
    assert read(text)[1] == [(1, what)]


def test_a_simple_base_at_a_url_needs_a_checksum():
    good(with_base("simple:https://x/y", f"#base-checksum={SHA}"))
    wrong = "base-checksum must be sha256: and 64 hexadecimal digits, not 'md5:0'"
    assert read(with_base("simple:https://x/y", "#base-checksum=md5:0"))[1] == [(4, wrong)]


SIGNED = ("#base-checksums=https://x/SHA256SUMS", "#base-key=keys/k.asc")


@pytest.mark.parametrize("name", ["disk-*.img", "disk.img", "*"])
def test_a_simple_base_may_name_a_signed_list(name):
    good(with_base(f"simple:https://x/d/{name}", *SIGNED))
    good(with_base(f"simple:https://x/d/{name}", *SIGNED, "#base-mirror=https://y/d http://z/d/"))


SIGNED_LISTS = [
    (
        "https://x/d-*",
        SIGNED[:1],
        [(4, "base-checksums needs #base-key=FILE, the key that signs the list")],
    ),
    (
        "https://x/d",
        (f"#base-checksum={SHA}", *SIGNED[1:]),
        [(5, "base-key needs #base-checksums=URL, the list that names the disk")],
    ),
    (
        "https://x/d",
        (f"#base-checksum={SHA}", "#base-mirror=https://y/"),
        [(5, "base-mirror needs #base-checksums=URL, the list that names the disk")],
    ),
    (
        "https://x/d",
        (*SIGNED, f"#base-checksum={SHA}"),
        [(6, "base-checksum and base-checksums exclude each other")],
    ),
    (
        "images/d.img",
        SIGNED,
        [
            (4, "base-checksums is for simple: bases at a URL only"),
            (5, "base-key is for simple: bases at a URL only"),
        ],
    ),
    (
        "https://x/*/d.img",
        SIGNED,
        [(1, "* can stand in the last part of a URL only, the file's name")],
    ),
    (
        "https://x/d/",
        SIGNED,
        [(1, "a URL with base-checksums ends with a file's name, or a pattern of it")],
    ),
    (
        "https://x/d?a=b",
        SIGNED,
        [(1, "a URL with base-checksums has no query: its last part is a file's name")],
    ),
    (
        "https://x/d",
        ("#base-checksums=keys/SUMS", SIGNED[1]),
        [
            (
                4,
                (
                    "base-checksums must be an http or https URL without a password or a query, "
                    "not 'keys/SUMS'"
                ),
            )
        ],
    ),
    (
        "https://x/d",
        (*SIGNED, "#base-mirror=ftp://y/"),
        [
            (
                6,
                (
                    "base-mirror must be http or https URLs without a password, with blanks "
                    "between, not 'ftp://y/'"
                ),
            )
        ],
    ),
]


@pytest.mark.parametrize(("url", "more", "problems"), SIGNED_LISTS)
def test_invalid_combinations_with_a_signed_list_are_problems(url, more, problems):
    assert read(with_base(f"simple:{url}", *more))[1] == problems


def test_missing_properties_that_a_client_needs_are_problems():
    spec, problems = read("update\n")
    assert spec is None
    assert problems == [
        (
            None,
            "no base: virt-builder and lago need an image, and an image needs a base; add #base=…",
        ),
        (None, "no arch: virt-builder's index needs it; add #arch=…"),
        (None, "no distro: lago chooses how to set up a machine by it; add #distro=…"),
    ]


def test_unknown_architectures_are_problems():
    assert read("#base=a\n#distro=x\n#arch=amd64\n")[1] == [
        (3, "arch 'amd64' is spelled 'x86_64' here")
    ]
    assert read("#base=a\n#distro=x\n#arch=z80\n")[1] == [
        (
            3,
            (
                "arch must be one of aarch64, armv7l, i686, ppc64, ppc64le, riscv64, s390x, "
                "x86_64, not 'z80'"
            ),
        )
    ]


COMMANDS = [
    ("instal x", "unknown command 'instal'; did you mean 'install'?"),
    ("qqqq", "unknown command 'qqqq'"),
    ("--update", "'--update': commands are written without dashes"),
    ("install\tx", "'install' is followed by a tab or newline; virt-builder wants one blank"),
    ("size 6G", "size is an option and no command: write the property #size=…, such as #size=6G"),
    (
        "attach x.iso",
        (
            "attach is an option and no command: an attached disk is not part of the repository; "
            "use upload or copy-in"
        ),
    ),
    (
        "no-network",
        (
            "no-network is an option and no command: the network is a setting "
            "(network in lago-images.toml)"
        ),
    ),
    (
        "tar-in x:/y",
        "tar-in needs virt-builder 1.52 or newer: use copy-in, or upload and run-command tar",
    ),
    ("update now", "update takes no argument, but has 'now'"),
    ("install", "install needs an argument: install PKG,PKG.."),
    ("install a b", "install wants commas between packages, not blanks: 'a b'"),
    ("install @a b,c d", "install wants commas between packages, not blanks: 'c d'"),
    ("install @a\tb", "install wants commas between packages, not blanks: '@a\\tb'"),
    ("install a,,b", "install has an empty name in its list"),
    ("install --x", "'--x' is an option and no package"),
    ("write /x", "write needs two parts with a colon between: write FILE:CONTENT"),
    ("write etc/motd:x", "write wants a path in the guest that begins with /, not 'etc/motd'"),
    ("upload a:etc/a", "upload wants a path in the guest that begins with /, not 'etc/a'"),
    ("copy /a:b", "copy wants a path in the guest that begins with /, not 'b'"),
    ("mkdir a:/b", "mkdir wants a path in the guest that begins with /, not 'a:/b'"),
    ("link a:/b:c", "link wants a path in the guest that begins with /, not 'c'"),
    ("chmod /a:0755", "chmod wants an octal mode before the colon, such as 0755, not '/a'"),
    ("chmod 9999:/a", "chmod wants an octal mode before the colon, such as 0755, not '9999'"),
    ("chmod 017777:/a", "chmod wants an octal mode before the colon, such as 0755, not '017777'"),
    ("chmod u+x:/a", "chmod wants an octal mode before the colon, such as 0755, not 'u+x'"),
    ("chmod 755:/a", "chmod takes 755 for a decimal number: write 0755"),
    ("chmod 640:/a", "chmod takes 640 for a decimal number: write 0640"),
    ("chmod 1777:/a", "chmod takes 1777 for a decimal number: write 01777"),
    ("chmod 4755:/a", "chmod takes 4755 for a decimal number: write 04755"),
    ("chmod 4096:/a", "chmod wants an octal mode before the colon, such as 0755, not '4096'"),
    ("chmod 0o755:/a", "chmod wants an octal mode before the colon, such as 0755, not '0o755'"),
    ("upload :/x", "upload needs two parts with a colon between: upload FILE:DEST"),
    (
        "ssh-inject root",
        "ssh-inject without a selector reads the key of whoever builds; add :string:KEY",
    ),
    ("ssh-inject root:x", "ssh-inject wants one of string:, file: as its selector"),
    (
        "root-password 123",
        (
            "root-password wants one of password:, file:, random, disabled, disable, locked, lock "
            "as its selector"
        ),
    ),
    ("password-crypto rot13", "password-crypto must be md5|sha256|sha512, not 'rot13'"),
    ("run-command " + "x" * 131009, "the argument of run-command has more than 131008 bytes"),
    ("edit /x:system('id')", REFUSAL),
    ("# hides \\\nupdate", "a comment ends in a backslash, which hides the next line"),
    ("#name=x\\\nupdate", "a comment ends in a backslash, which hides the next line"),
    ("install a,\\", "goes on with a backslash to the end of the file"),
]


@pytest.mark.parametrize(("line", "what"), COMMANDS)
def test_invalid_commands_are_problems(line, what):
    problems = read(HEADER + line + "\n")[1]
    assert (4, what) in problems
    assert all(number == 4 for number, _ in problems)


@pytest.mark.parametrize("mode", ["0755", "04755", "000755", "0", "493", "511", "420", "4095"])
def test_modes_that_virt_customize_takes_are_accepted(mode):
    assert good(f"{HEADER}chmod {mode}:/a\n").operations[0].argument == f"{mode}:/a"


PUBLIC = "AAAAC3NzaC1lZDI1NTE5AAAAIBx7" + "Qm4Zk9" * 6
LONG_PATH = "files/ProductionConfigurationFiles2026/ApplicationSettings"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            f"ssh-injct root:string:ssh-rsa {PUBLIC} me@here",
            "unknown command 'ssh-injct'; did you mean 'ssh-inject'?",
        ),
        (
            f"uplod {LONG_PATH}:/etc/x",
            "unknown command 'uplod'; did you mean 'upload'?",
        ),
    ],
)
def test_a_slip_beside_what_looks_like_a_key_hides_no_other_problem(line, what):
    assert read(f"{HEADER}{line}\nfoo\n")[1] == [(4, what), (5, "unknown command 'foo'")]


KEY_LINE = "lQWGBGkq" + "Zx8Yw7Vu" * 7


@pytest.mark.parametrize("first", [KEY_LINE, f"/{KEY_LINE[1:]}", "-----BEGIN PRIVATE KEY-----"])
def test_a_line_of_a_key_is_the_only_problem(first):
    assert read(f"{HEADER}foo\n  {first}\n{KEY_LINE}\n=Zx8Y\n")[1] == [(5, KEY)]


@pytest.mark.parametrize("front", ["install", "install a b", "upload x" * 4, "#size=" + "x-" * 20])
def test_no_message_has_a_piece_of_a_key(front):
    """Quotes end after 60 characters, of which the last may be the first of a key."""
    for blank in ("", " "):
        problems = read(f"{HEADER}{front}{blank}{KEY_LINE}\n")[1]
        assert not any(KEY_LINE[:12] in what for _, what in problems), problems


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (
            "update\r\n",
            4,
            "a carriage return (Windows line ending; see core.autocrlf) is not allowed",
        ),
        ("update\x00\n", 4, "a NUL byte is not allowed"),
        ("\n#name=\x1b[1mx\n", 5, "the control character U+001B is not allowed"),
        ("#name=a\u202eb\n", 4, "the invisible character U+202E is not allowed"),
        ("#name=a\u2028b\n", 4, "the control character U+2028 is not allowed"),
    ],
)
def test_control_characters_are_problems(text, line, what):
    assert read(HEADER + text)[1] == [(line, what)]


def test_invisible_characters_are_a_problem():
    """All of Unicode's category Cf, and what is drawn as nothing."""
    fillers = "\u034f\u115f\u1160\u3164\uffa0\u180b\ufe00\ufe0f\U000e0100"
    unseen = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Cf"]
    assert len(unseen) > 150
    for character in (*unseen, *fillers):
        [(line, what)] = read(f"{HEADER}write /etc/motd:a{character}b\n")[1]
        assert line == 4
        assert f"U+{ord(character):04X}" in what or character == "\ufeff"


def test_letters_of_any_script_are_accepted():
    assert read(HEADER + "write /etc/motd:Grüße, שלום, สวัสดี, 한국어, 👍, e\u0301\n")[1] == []


def test_each_kind_of_invisible_character_is_reported_once():
    text = "\ufeff" + HEADER.replace("\n", "\r\n")
    assert read(text)[1] == [
        (1, "a byte order mark is not allowed"),
        (1, "a carriage return (Windows line ending; see core.autocrlf) is not allowed"),
    ]


@pytest.mark.parametrize("name", ["-x", ".x", "a b", "a/b", "a|b", "é", "<b>", "::error::x"])
def test_names_that_the_index_refuses_are_problems(name):
    what = (
        f"{name!a} cannot name an image: virt-builder's index allows letters, digits and "
        "-._ after a first letter or digit"
    )
    assert read(HEADER, name=name)[1] == [(None, what)]


def test_a_name_that_no_file_can_have_is_a_problem():
    assert read(HEADER, name="x" * 201)[1] == [(None, "the name has 201 characters, more than 200")]


def test_all_problems_are_reported_in_order_of_their_lines():
    _, problems = read("#arch=z80\nfoo\n#size=x\nupdate 1\n")
    assert [line for line, _ in problems] == [None, None, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "expression",
    [
        "s/set timeout=5/set timeout=0/g",
        r"s/^(\s+linux\s+\/boot.*)$/$1 net.ifnames=0 biosdevname=0/g",
        's/^(GRUB_CMDLINE_LINUX=)(.*)$/$1"net.ifnames=0 biosdevname=0"/g',
        '\n    $_ = "" if /StandardInput=tty/d',
        """$_ = '<service name="nfs"/>'.$_ if /<\\/zone>/""",
        """$_ = '<service name="iscsi"/>' + $_ if /<\\/zone>/""",
        "s/a/b/; s|c|d|i; tr/a-z/A-Z/; y/x/y/ unless !/z/;",
        r"s/me\@x/\$you/",
        r"s/(a|b$|c)($)/${1}x/",
    ],
)
def test_harmless_edit_expressions_are_accepted(expression):
    assert is_harmless(expression)


@pytest.mark.parametrize(
    "expression", ["", " ", "s/a/b", "s/a/b/gx", "print", "$_ = $x", "s/a/b/ s/c/d/", "s/a/b/\0"]
)
def test_other_edit_expressions_are_refused(expression):
    assert not is_harmless(expression)


def test_sizes_and_word_lists_are_parsed():
    assert size_bytes("6G") == 6 * 2**30
    assert size_bytes("1048576") == 2**20
    assert size_bytes("06G") is None
    assert words(" a, b  c,") == ("a", "b", "c")
