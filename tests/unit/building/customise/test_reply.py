"""What a guest answers, and by which way: a port of its own, and no second disk."""

import os
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest

from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.customise.sysprep import Reply, _failure, customise, read_reply
from lago_images.building.customise.versions import lacking, refuse_unknown_commands
from lago_images.console import Console
from lago_images.errors import BuildError, CommandError, SpecError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.commands import COMMANDS
from tests.support.images import a_context, a_spec

HEAD = "#name=i\n#base=layer:b\n#arch=x86_64\n#distro=d\n"
# Starts its QEMU to ask it something, and then with the port of the appliance, as libguestfs does.
SYSPREP = """
echo "$@" >"$0.argv"
"$LIBGUESTFS_HV" -machine none -qmp stdio
exec "$LIBGUESTFS_HV" -device virtserialport,chardev=c,name=org.libguestfs.channel.0
"""
QEMU = """
echo "$@" >>"$0.argv"
for each; do
  case $each in file,id=answer,path=*) cat "$0.says" >"${each#file,id=answer,path=}" ;; esac
done
"""


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"virt-sysprep": SYSPREP, "qemu": QEMU}.items():
        (folder / name).write_text("#!/bin/sh" + text)
        (folder / name).chmod(0o755)
    return folder


def build(tmp_path, programs, said, *lines):
    (programs / "qemu.says").write_text(said)
    environ = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LIBGUESTFS_HV": str(programs / "qemu"),
    }
    console = Console()
    context = replace(a_context(tmp_path, environ=environ), console=console)
    # A comma in a path is one of QEMU's own separators.
    work = tmp_path / "work it"
    work.mkdir()
    disk = work / "disk.raw"
    disk.write_bytes(b"")
    prepared = Prepared(disk=disk, format="raw", record=BaseRecord(ref="b", digest="d"))
    accel = Acceleration(name="tcg")
    spec = a_spec("\n".join([HEAD.rstrip(), "write /etc/x:y", *lines]) + "\n")
    return customise(spec, prepared, work, context, Runner(environ=environ), accel=accel), work


def test_the_reply_comes_by_a_serial_port_and_only_one_disk_is_attached(tmp_path, programs):
    done, work = build(tmp_path, programs, "packages\na 1 all\nend\nend of answer\n")
    assert done.packages == (Package(name="a", version="1", arch="all"),)
    asked, started = (programs / "qemu.argv").read_text().splitlines()
    assert asked == "-machine none -qmp stdio"
    assert "-device virtserialport,chardev=answer,name=org.lago-images.answer" in started
    assert (programs / "virt-sysprep.argv").read_text().split().count("--add") == 1
    assert list(work.iterdir()) == [done.disk]


def test_a_password_for_an_unknown_user_fails_with_its_line(tmp_path, programs):
    with pytest.raises(BuildError, match=r"^image-specs/image:6: password 'nosuch' failed: "):
        build(tmp_path, programs, "missing-user nosuch\n", "password nosuch:password:x")


def test_remaining_secrets_are_told_if_all_of_them_are_known(tmp_path, programs):
    done, _ = build(tmp_path, programs, "secret /etc/a.key\nsecret /root/b\nend of answer\n")
    assert done.secrets == ("/etc/a.key", "/root/b")


def test_secrets_of_a_reply_that_is_cut_off_are_not_known(tmp_path, programs):
    done, _ = build(tmp_path, programs, "packages\na 1 all\nend\nsecret /etc/a.key\n")
    assert done.packages
    assert done.secrets is None


@pytest.mark.parametrize("said", ["", "packages\na 1 all\n", "\0\n", "end\npackages\n"])
def test_a_truncated_reply_is_refused(tmp_path, said):
    (tmp_path / "answer").write_text(said)
    assert read_reply(tmp_path / "answer") == Reply()
    assert read_reply(tmp_path / "nothing") == Reply()


def options(programs, names, version):
    text = "".join(f"echo --{name}\n" for name in names)
    body = f'#!/bin/sh\nif [ "$1" = --version ]; then echo virt-sysprep {version}; exit; fi\n{text}'
    (programs / "virt-sysprep").write_text(body)
    return Runner(environ={"PATH": f"{programs}:/usr/bin:/bin"})


def test_commands_missing_from_the_installed_program_are_reported_with_their_line(programs):
    runner = options(programs, set(COMMANDS) - {"sm-register"}, "1.56.1")
    spec = a_spec(HEAD + "update\nsm-register\n")
    with pytest.raises(SpecError) as caught:
        refuse_unknown_commands(spec, runner)
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "image-specs/image:6: sm-register: the installed virt-sysprep (1.56.1) does not have "
            "it, which guestfs-tools have up to 1.55.1"
        )
    ]


def test_a_command_accepted_and_then_refused_counts_as_missing(programs):
    assert set(lacking(options(programs, COMMANDS, "1.55.2"))) == {
        name for name in COMMANDS if name.startswith("sm-")
    }
    assert lacking(options(programs, COMMANDS, "1.48.2")) == {}


def failed(*tail):
    return CommandError(
        "virt-sysprep failed with exit code 1", argv=["virt-sysprep"], returncode=1, tail=tail
    )


@pytest.mark.parametrize(
    "stated",
    ["virt-sysprep: error: ", "virt-sysprep: error: nginx,nope: command exited with an error"],
)
def test_a_failing_command_is_reported_with_what_its_package_manager_called_an_error(stated):
    error = failed(stated, "Get:1 …", "E: Unable to locate package nope", "If reporting bugs, …")
    seen = ["Installing packages: nginx nope"]
    failure = _failure(a_spec(HEAD + "install nginx,nope\n"), seen, error)
    assert failure.message.endswith("E: Unable to locate package nope")
    assert ": install nginx,nope failed: " in failure.message


def test_commands_on_a_disk_without_a_system_are_reported_with_what_to_do():
    error = failed("virt-sysprep: error: no operating systems were found in the guest image")
    failure = _failure(a_spec(HEAD + "update\n"), [], error)
    assert "no operating systems were found" in failure.message
    assert failure.hint.startswith("commands need a disk with a system")


def ended_by(number):
    return CommandError(
        f"customising i: virt-sysprep was killed by {number.name}",
        argv=["virt-sysprep"],
        returncode=-number,
        tail=["[   0.0] Examining the guest ...", "Fatal error: exception"],
    )


def test_a_program_that_crashed_is_told_with_its_last_line_and_what_to_do():
    failure = _failure(a_spec(HEAD + "update\n"), [], ended_by(signal.SIGABRT))
    assert failure.message == (
        "customising image failed: customising i: virt-sysprep was killed by SIGABRT: "
        "its last line was 'Fatal error: exception'"
    )
    assert "build again" in failure.hint
    at_a_line = _failure(a_spec(HEAD + "update\n"), ["Updating packages"], ended_by(signal.SIGSEGV))
    assert "build again" in at_a_line.hint


CRASHES = """
echo start >>"$0.starts"
[ "$(wc -l <"$0.starts")" -ge {good} ] || {{ printf '%s' '{said}'; kill -ABRT $$; }}
"""


@pytest.mark.parametrize(
    ("good", "said", "starts"),
    [
        (3, "[   0.0] Examining the guest ...", 3),
        (4, "", 3),
        (2, "[   0.0] Examining the guest ...\n[   9.0] Setting a random seed\n", 1),
    ],
)
def test_a_crash_before_the_disk_is_changed_starts_the_program_again(
    tmp_path, programs, capsys, good, said, starts
):
    crashes = CRASHES.format(good=good, said=said)
    (programs / "virt-sysprep").write_text(f"#!/bin/sh{crashes}{SYSPREP}")
    with nullcontext() if starts == good else pytest.raises(BuildError, match="killed by SIGABRT"):
        build(tmp_path, programs, "")
    assert len((programs / "virt-sysprep.starts").read_text().splitlines()) == starts
    assert capsys.readouterr().err.count("is started again: the disk is unchanged") == starts - 1


def test_a_program_that_was_ended_is_not_called_crashed():
    assert _failure(a_spec(HEAD + "update\n"), [], ended_by(signal.SIGKILL)).hint is None


def test_a_failing_clean_up_is_reported_as_after_the_specs_commands():
    error = failed("virt-sysprep: error: /scratch/finish.sh: command exited with an error")
    failure = _failure(a_spec(HEAD + "update\n"), [], error)
    assert "after the spec's commands" in failure.message
    assert "packages were listed" in failure.message
    assert failure.hint is not None
