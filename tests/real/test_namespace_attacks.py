"""Attacks of a spec's commands on the host that builds: each is tried, and none succeeds."""

import errno
import os
import re
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.customise.namespace import customise as namespaces
from lago_images.building.customise.namespace import disk, user_namespace
from lago_images.errors import BuildError, CommandError, Error
from lago_images.host.process import Runner
from tests.support.images import read_ext4
from tests.support.namespaces import in_namespaces, need_namespaces, small

pytestmark = pytest.mark.real
need_namespaces()

# Each writes what it reached; "denied" is the answer of who reached nothing.
ATTACKS = r"""#!/bin/sh
mkdir /srv/out
note() { cat >"/srv/out/$1"; }
tried() { name=$1; shift; if "$@" >"/srv/out/$name.log" 2>&1; then echo reached; else echo denied; fi | note "$name"; }
call() { name=$1; shift; perl -e 'my ($n, @a) = map { /^\d+$/ ? $_ + 0 : $_ } @ARGV; my $r = syscall($n + 0, @a); my $e = $! + 0; print $r < 0 ? "denied $e" : "reached $r"' "$@" | note "$name"; }

tried mount-tmpfs mount -t tmpfs none /mnt
tried mount-proc mount -t proc none /mnt
tried remount mount -o remount,rw,bind /sys
tried umount-proc umount /proc
tried unshare-mount unshare --mount true
tried unshare-user unshare --user true
tried unshare-net unshare --user --map-root-user --net true
tried join-first nsenter --target 1 --mount true
tried sysrq sh -c 'echo h >/proc/sysrq-trigger'
tried sysctl sh -c 'echo x >/proc/sys/kernel/core_pattern'
tried host-memory head -c 1 /dev/mem
tried kernel-memory head -c 1 /proc/kcore
tried disk-node sh -c 'mknod /srv/disk b 8 0 && head -c 1 /srv/disk'
tried memory-node sh -c 'mknod /srv/memory c 1 1 && head -c 1 /srv/memory'
tried inputs sh -c 'echo x >/proc/1/root/inputs/attack.sh'
tried given sh -c 'echo x >/proc/1/root/given/x'
tried plan sh -c 'echo x >/proc/1/root/agent/plan.json'
tried host-programs sh -c 'echo x >/proc/1/root/usr/bin/evil'
tried root-of-sandbox sh -c 'echo x >/proc/1/root/evil'
tried signal kill -0 HOSTS_PROCESS
tried signal-all-others sh -c 'kill -0 1 && kill -9 1 && ! kill -0 1'
tried set-clock date -s 2001-01-01
tried set-name sh -c 'hostname evil'
tried immutable chattr +i /srv/out
tried other-group chown 0:70000 /srv/out
tried too-large truncate -s 100G /srv/large

call ptrace 101 0 0 0 0
call keyctl 250 0 0 0 0 0
call add-key 248 user name x 1 18446744073709551613
call bpf 321 0 0 0
call perf 298 0 0 0 0 0
call userfaultfd 323 0
call io-uring 425 1 0
call open-by-handle 304 0 0 0
call process-vm 310 1 0 0 0 0 0
call new-user-namespace 272 268435456
call clone-user-namespace 56 268435473 0 0 0 0
call setns 308 0 0
call kexec 246 0 0 0 0
call module 313 0 0 0
call packet-socket 41 17 3 0
call vsock 41 40 1 0
call crypto-socket 41 38 5 0
call netfilter 41 16 3 12
call high-bits-family 41 4294967313 3 0

tried x32-open perl -e 'syscall(1073741826, "/etc/passwd", 0, 0)'
cat /proc/self/status | note status
ls -l /proc/self/fd | note descriptors
cat /proc/[0-9]*/comm | note processes
ls /proc/1/root | note root
ls /dev | note devices
find /sys | note sys
cat /proc/mounts | note mounts
cat /proc/net/unix | note sockets
perl -e 'mkdir "/srv/in"; chroot "/srv/in"; chdir "../" for 1 .. 50; chroot "."; opendir D, "/"; print join "\n", sort readdir D' | note chroot
perl -e 'use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); print connect(S, pack_sockaddr_un("\0'"$1"'")) ? "reached" : "denied"' | note abstract
perl -e '$x = "a" x (3 << 30); print "reached"' 2>/dev/null | note memory
perl -e '$SIG{CHLD} = "IGNORE"; for (1 .. 9000) { $p = fork; last unless defined $p; $p or do { sleep 600; exit }; push @p, $p } $n = @p; kill "KILL", @p; print $n' | note forks
sleep 2
perl -e 'use POSIX; $SIG{CHLD} = "IGNORE"; $n = 0; for $u (1001 .. 1009) { $p = fork; if (!$p) { setuid $u; for (1 .. 2000) { $q = fork; exit unless defined $q; $q or do { sleep 600; exit } } sleep 600; exit } } sleep 8; opendir D, "/proc"; $n = grep /^\d+$/, readdir D; print $n; kill "KILL", grep { (stat "/proc/$_")[4] > 1000 } map { /^(\d+)$/ ? $1 : () } do { opendir D, "/proc"; readdir D }' | note forks-of-others
cp /bin/sh /srv/shell; chmod 4755 /srv/shell
perl -e 'use POSIX; setuid 65534; exec "/srv/shell", "-p", "-c", "id -u"' | note set-id
exit 0
"""  # noqa: E501
DENIED = re.findall(r"^(?:tried|call) (\S+)", ATTACKS, re.MULTILINE)


@pytest.fixture(scope="module")
def base(debian12):
    return small(debian12)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("attacked")
    name = f"lago-images-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        script = ATTACKS.replace("'\"$1\"'", name).replace("HOSTS_PROCESS", str(os.getpid()))
        done = in_namespaces(folder, base, "run attack.sh\n", script)
    return done.disk, folder / "work"


@pytest.fixture(scope="module")
def answer(attacked):
    return lambda name: read_ext4(attacked[0], f"/srv/out/{name}")


@pytest.mark.parametrize("name", DENIED)
def test_what_leads_out_of_the_sandbox_is_denied(answer, name):
    assert answer(name).startswith("denied"), answer(name)


def test_calls_are_denied_by_the_filter_and_not_by_chance(answer):
    """Without it, the kernel would tell most of them that their arguments are wrong."""
    for name in ("keyctl", "bpf", "perf", "process-vm", "setns", "kexec", "module"):
        assert answer(name) == f"denied {errno.EPERM}", name
    assert answer("io-uring") == f"denied {errno.ENOSYS}"
    for name in ("packet-socket", "vsock", "crypto-socket", "high-bits-family"):
        assert answer(name) == f"denied {errno.EAFNOSUPPORT}", name
    assert answer("netfilter") == f"denied {errno.EPROTONOSUPPORT}"


def test_only_its_own_processes_are_seen(answer):
    assert set(answer("processes").splitlines()) == {"bwrap", "python3", "sh", "cat"}


def test_nothing_of_the_host_but_usr_is_in_the_sandbox(answer):
    known = {"agent", "answer", "bin", "dev", "etc", "fetched", "given", "inputs", "lib", "lib32"}
    known |= {"lib64", "libx32", "proc", "sbin", "sysroot", "usr"}
    assert set(answer("root").split()) <= known
    # Who breaks out of the chroot of the commands is there, too.
    assert set(answer("chroot").split()) - {".", ".."} <= known
    assert answer("sys") == "/sys\n"


def test_only_harmless_devices_are_there(answer):
    assert set(answer("devices").split()) == {
        *("core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin"),
        *("stdout", "tty", "urandom", "zero"),
    }


def test_no_descriptor_leads_out(answer):
    opened = re.findall(r"(\d+) -> (\S+)", answer("descriptors"))
    assert {number for number, _ in opened} <= {"0", "1", "2", "3"}
    assert not [target for _, target in opened if "/work" in target or "inputs" in target]


def test_root_has_few_rights_and_gains_none(answer):
    status = dict(line.split(":\t", 1) for line in answer("status").splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    sys_admin, sys_ptrace, net_admin, net_raw, mknod, sys_module = 21, 19, 12, 13, 27, 16
    for number in (sys_admin, sys_ptrace, net_admin, net_raw, mknod, sys_module):
        assert not int(status["CapEff"], 16) >> number & 1


def test_a_set_id_program_gives_no_rights(answer):
    assert answer("set-id").strip() == "65534"


def test_no_socket_of_the_host_is_reached(answer):
    assert answer("abstract") == "denied"
    assert "lago-images" not in answer("sockets")


def test_memory_and_processes_have_limits(answer):
    assert answer("memory") == ""
    assert 100 < int(answer("forks")) < user_namespace.MOST_PROCESSES
    # Of several users together, too.
    assert int(answer("forks-of-others")) < user_namespace.MOST_PROCESSES + 50


def test_no_file_of_it_is_left_on_the_host(attacked):
    disk, work = attacked
    assert list(work.iterdir()) == [disk]
    assert disk.stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    "command", ["kill -9 -1", "kill -9 2", "rm -rf /usr/bin/dpkg-query /bin/sh"]
)
def test_who_spoils_the_sandbox_spoils_a_build_and_no_more(tmp_path, base, command):
    with pytest.raises(Error):
        in_namespaces(tmp_path, base, f"run-command {command}\nrun-command true\n")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["base.raw"]


def test_no_more_memory_is_taken_by_all_processes_than_an_appliance_has(tmp_path, base):
    """Each is within its own bound."""
    eats = "perl -e '$x = \"a\" x (400 << 20); sleep 600' &"
    with pytest.raises(BuildError, match="took more than 2 GiB of memory"):
        in_namespaces(tmp_path, base, f"run-command {eats * 8} sleep 600\n")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["base.raw"]


@pytest.mark.parametrize("folder", ["/srv", "/proc/1/root/fetched"])
def test_no_more_is_written_than_the_disk_holds(tmp_path, base, monkeypatch, folder):
    """A host that builds several images has room for one guest that fills its disk, not for all."""
    size = 600 * 2**20
    find = disk.find_root
    monkeypatch.setattr(namespaces, "find_root", lambda path: replace(find(path), disk_size=size))
    written = "; ".join(f"fallocate --length 250M {folder}/{number}" for number in range(8))
    with pytest.raises(BuildError, match="wrote more than its disk holds"):
        in_namespaces(tmp_path, base, f"run-command {written}; sleep 600\n")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["base.raw"]


CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        print("reached", address)
    except OSError as error:
        print("denied", address, error)
"""


def test_the_network_leads_neither_to_the_host_nor_to_its_cloud():
    runner = Runner()
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        user_namespace.namespace(runner, user_namespace.block()) as held,
    ):
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        own = sorted(user_namespace.own_addresses(runner))
        user_namespace.loopback(runner, held)
        with user_namespace.networked(runner, held):
            inside = held.runner(runner, network=True)
            hosts = ["127.0.0.1", "10.0.2.2", *own]
            places = [f"{host}:{port}" for host in hosts]
            places += ["169.254.169.254:80", "168.63.129.16:80", "100.100.100.200:80"]
            out = inside.capture(["python3", "-c", CONNECT, *places]).decode()
            # It is connected: what is not forbidden has a way.
            route = inside.capture(["ip", "route", "get", "192.0.9.9"]).decode()
    assert "reached" not in out, out
    assert len(out.splitlines()) == len(places)
    assert "dev tap0" in route


def _accept(server):
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def test_the_namespaces_root_is_nobody_of_this_host():
    runner = Runner()
    ids = user_namespace.block()
    with user_namespace.namespace(runner, ids) as held:
        maps = Path(f"/proc/{held.pid}/uid_map").read_text().split()
        assert maps == ["0", str(ids.first_uid), str(user_namespace.IDS)]
        assert ids.first_uid > 65535
        inside = held.runner(runner)
        with pytest.raises(CommandError):
            inside.capture(["sh", "-c", f"kill -0 {os.getpid()}"])
        home = Path(f"/proc/{os.getpid()}/environ")
        with pytest.raises(CommandError):
            inside.capture(["cat", str(home)])
    assert subprocess.run(
        ["kill", "-0", str(held.pid)], check=False, capture_output=True
    ).returncode


def test_the_tree_belongs_to_who_has_no_rights_on_this_host(tmp_path, base):
    """A set-id program in it, where somebody came at it, would give the rights of a stranger."""
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def look():
        tree = tmp_path / "work" / "namespace" / "tree" / "usr"
        while not over.wait(0.02):
            try:
                status = tree.lstat()
                seen.append((status.st_uid, (tmp_path / "work").stat().st_mode & 0o77))
            except OSError:
                pass

    thread = threading.Thread(target=look)
    thread.start()
    try:
        in_namespaces(tmp_path, base, "run-command sleep 1\n")
    finally:
        over.set()
        thread.join()
    assert {(user_namespace.block().first_uid, 0)} == set(seen)
