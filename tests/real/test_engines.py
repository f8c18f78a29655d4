"""The same spec by both engines: their images have the same files."""

import hashlib
import json
import os
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building import packages as contents
from lago_images.building import qcow2
from lago_images.building.customise import engine, identities, sysprep
from lago_images.building.customise.namespace import rules
from lago_images.building.customise.namespace.disk import find_root
from lago_images.building.outcome import described, last_lines
from lago_images.errors import BuildError, CommandError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import EngineRecord
from lago_images.settings import Settings
from tests.support import trees
from tests.support.images import a_context, a_spec, read_ext4
from tests.support.kept import kept_image
from tests.support.namespaces import need_namespaces, small
from tests.tools import need

pytestmark = pytest.mark.real
need("virt-sysprep", "dpkg-deb")
need_namespaces()

HEAD = "#name=e\n#base=layer:debian-12\n#arch=x86_64\n#distro=debian\n"
# Every command of the engine, and what programs leave: owners, modes, links, attributes, a package.
OPERATIONS = r"""root-password password:123456
password-crypto sha512
no-logfile
mkdir /srv/repo/a/b
copy-in files/repo:/srv
write /etc/apt/sources.list:deb [trusted=yes] file:/srv/repo ./\

install lago-images-test
update
uninstall nano
run-command adduser --disabled-password --gecos '' joe && echo 'joe:x' > /home/joe/own && chown joe: /home/joe/own
password joe:locked:password:a:b
hostname new.example.org
timezone Europe/Berlin
write /etc/motd:first\
second
append-line /etc/motd:third
append-line /etc/new-file:only line
run-command printf 'x\r\ny' > /srv/crlf; printf y > /srv/open
append-line /srv/crlf:windows
append-line /srv/open:unix
edit /etc/motd:s/first/FIRST/
edit /etc/hosts:$_ = "# all\n" if /ff02/
chmod 0640:/etc/motd
chmod 448:/etc/new-file
copy /etc/skel:/srv/skel
move /srv/skel/.bashrc:/srv/bashrc
link /etc/motd:/srv/one:/srv/two
link ../etc/motd:/srv/one
touch /srv/touched
truncate /srv/open
write /srv/scrubbed:secret
scrub /srv/scrubbed
upload files/program:/usr/local/bin
upload files/plain:/srv/renamed
run files/script.sh
truncate-recursive /srv/folder/deep
delete /usr/share/doc/a*
delete /usr/share/doc/{b,c}*
run-command id > /srv/id; umask > /srv/umask; pwd > /srv/pwd; env | sort > /srv/environment; echo "$0" > /srv/name
run-command readlink /proc/self/fd/1 /proc/self/fd/2 > /srv/descriptors; ischroot; echo $? > /srv/is-chroot
run-command cat /etc/resolv.conf > /srv/resolver 2>&1; exit 0
run-command (sleep 500; echo never > /srv/late) & echo left > /tmp/left; echo left > /var/log/left.log
run-command for user in joe lago-test joe lago-test; do chage --lastday 20000 $user; done
run-command (echo '-----BEGIN PRIVATE KEY-----'; echo x) > /etc/left.key; mkdir /etc/nvme; echo x > /etc/nvme/hostid
"""  # noqa: E501
SCRIPT = r"""#!/bin/sh
set -e
mkdir -p /srv/folder/deep /srv/shared
echo deep > /srv/folder/deep/file
mkfifo /srv/fifo
ln /srv/crlf /srv/hard
setcap cap_net_admin+ep /usr/bin/tail
chgrp mail /srv/shared
chmod 2775 /srv/shared
echo inherits > /srv/shared/group
cp /bin/true /srv/set-id
chown joe:mail /srv/set-id
chmod 6755 /srv/set-id
perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(Local => "/srv/socket", Listen => 1) or die'
truncate --size 1G /srv/sparse
echo end >> /srv/sparse
dd if=/dev/zero of=/srv/zeroes bs=4096 count=3 2>/dev/null
systemctl enable systemd-networkd.service
echo one > "/srv/$(printf 'not\377utf8')"
# setxattr: a name of one's own, an ACL of the folder, and one that is inherited.
perl -e 'sub set { my ($f, $n, $v) = @_; my $l = length $v; syscall(188, $f, $n, $v, $l + 0, 0) and die "$n $!" }
  set("/srv/crlf", "user.mine", "value");
  my $entry = sub { pack("vvV", @_) };
  my $acl = pack("V", 2) . $entry->(1, 7, 0xffffffff) . $entry->(2, 5, 8) . $entry->(4, 5, 0xffffffff)
    . $entry->(16, 7, 0xffffffff) . $entry->(32, 5, 0xffffffff);
  set("/srv/shared", "system.posix_acl_access", $acl);
  set("/srv/shared", "system.posix_acl_default", $acl)'
echo inherits > /srv/shared/acl
"""  # noqa: E501
PACKAGE = {
    "DEBIAN/control": """\
        Package: lago-images-test
        Version: 1.0
        Architecture: all
        Maintainer: nobody <nobody@example.org>
        Depends: adduser
        Description: what maintainer scripts do
    """,
    "DEBIAN/conffiles": "/etc/lago-images-test.conf\n",
    "DEBIAN/postinst": """\
        #!/bin/sh
        set -e
        adduser --system --group --no-create-home --home /nonexistent lago-test
        install -d -o lago-test -g adm -m 2750 /var/lib/lago-test
        update-alternatives --install /usr/bin/lago-editor lago-editor /usr/bin/tail 10
        dpkg-statoverride --add --update root adm 4750 /usr/bin/lago-test
        hostname > /var/lib/lago-test/hostname
        ls -l /proc/1/root >/dev/null 2>&1 || true
        invoke-rc.d cron status >/dev/null 2>&1 || true
        echo "$DEBIAN_FRONTEND" > /var/lib/lago-test/frontend
    """,
    "etc/lago-images-test.conf": "x = 1\n",
    "usr/bin/lago-test": "#!/bin/sh\n",
}
# What differs between two builds by the same engine, too.
MAY_DIFFER = {
    "/etc/shadow",  # salts
    "/srv/environment",  # what the next test tells
}


def write_host_files(root):
    files = root / "files"
    (files / "repo").mkdir(parents=True)
    (files / "plain").write_text("plain")
    (files / "program").write_text("#!/bin/sh\n")
    (files / "program").chmod(0o755)
    (files / "script.sh").write_text(SCRIPT)
    package = root / "package"
    for name, text in PACKAGE.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (package / "DEBIAN/postinst").chmod(0o755)
    deb = files / "repo/lago-images-test_1.0_all.deb"
    argv = ["dpkg-deb", "--root-owner-group", "--build", package, deb]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1000000000"}
    subprocess.run(argv, check=True, capture_output=True, timeout=60, env=environ)
    sums = subprocess.run(["sha256sum", deb], check=True, capture_output=True, text=True)
    control = textwrap.dedent(PACKAGE["DEBIAN/control"]).strip()
    entry = f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\n"
    (files / "repo/Packages").write_text(f"{entry}SHA256: {sums.stdout.split()[0]}\n\n")


def customised(folder, debian12, chosen, text, umask=0o022):
    settings = Settings(folder=folder, network=False, engine=chosen)
    context = a_context(folder, settings=settings)
    write_host_files(context.root)
    work = folder / "work"
    work.mkdir()
    old = os.umask(umask)
    try:
        return engine.customise(
            a_spec(HEAD + text),
            debian12.copy(work),
            work,
            context,
            Runner(log=folder / "log"),
            accel=Acceleration(name="tcg"),
        )
    finally:
        os.umask(old)


@pytest.fixture(scope="module")
def base(debian12):
    """What needs no comparison is done on less."""
    return small(debian12)


def appliance_key(base):
    """A digest of all that the appliance's image is made of, this very base's disk among it."""
    tool = subprocess.run(["virt-sysprep", "--version"], check=True, capture_output=True, text=True)
    parts = [
        tool.stdout,
        find_root(base.disk).place.uuid,
        contents.digest(base.packages),
        HEAD,
        OPERATIONS,
        SCRIPT,
        json.dumps(PACKAGE),
    ]
    parts += [Path(module.__file__).read_text() for module in (sysprep, identities)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def built(tmp_path_factory, debian12):
    def in_appliance(folder):
        return customised(folder, debian12, rules.APPLIANCE, OPERATIONS).prepared

    # What the rules hold to be the machine's is asked here all the same, and told the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "why_not", lambda *_args: "")
        key, cache = appliance_key(debian12), debian12.disk.parents[1]
        appliance = kept_image(cache, "appliance", key, in_appliance)
        folder = tmp_path_factory.mktemp(rules.NAMESPACE)
        done = customised(folder, debian12, rules.NAMESPACE, OPERATIONS)
    assert done.engine == EngineRecord(name=rules.NAMESPACE, why="engine = namespace")
    return done.prepared, appliance


@pytest.mark.timeout(3600)
def test_both_engines_leave_the_same_files(built):
    one, other = (trees.files(each.disk) for each in built)
    for path in MAY_DIFFER:
        for tree in (one, other):
            if path in tree:
                tree[path] = replace(tree[path], content="", size=0)
    assert trees.differences(one, other) == []
    assert "/srv/late" not in one


@pytest.mark.timeout(3600)
def test_only_namespaces_tell_commands_the_time_to_keep(built):
    told, less = (set(read_ext4(each.disk, "/srv/environment").splitlines()) for each in built)
    assert less < told
    made = find_root(built[1].disk).made
    assert told - less == {f"SOURCE_DATE_EPOCH={made}"}


@pytest.mark.timeout(3600)
def test_both_know_the_same_packages(built):
    first, second = (each.packages for each in built)
    assert first == second
    assert "lago-images-test" in {package.name for package in first}


@pytest.mark.timeout(3600)
def test_both_set_the_passwords_of_the_same_users(built):
    kept = []
    for each in built:
        lines = read_ext4(each.disk, "/etc/shadow").splitlines()
        fields = [line.split(":") for line in lines]
        # The method and its parameters, and whether the account is locked.
        kept.append([(line[0], line[1].split("$")[:2], line[2:]) for line in fields])
    assert kept[0] == kept[1]
    assert ["", "6"] in [method for _, method, _ in kept[0]]


@pytest.mark.timeout(3600)
def test_the_new_file_system_is_sound(built):
    disk = built[0].disk
    root = f"{disk}?offset={find_root(disk).place.start}"
    done = subprocess.run(
        ["e2fsck", "-fn", root], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout


def test_two_builds_in_namespaces_are_equal_byte_for_byte(tmp_path, base, monkeypatch):
    """Whoever builds, wherever and when."""
    text = (
        "root-password password:123456\nmkdir /srv/a\ncopy-in files/repo:/srv\n"
        "run-command useradd --create-home joe && ldconfig\n"
        "run-command head -c 99 /dev/urandom >/etc/machine-id; echo x >/var/log/x\n"
    )
    one = customised(folder(tmp_path, "one"), base, rules.NAMESPACE, text).prepared.disk
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    other = customised(folder(tmp_path, "two, other"), base, rules.NAMESPACE, text, umask=0o077)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other.prepared.disk]
    done = subprocess.run(compare, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "Images are identical."
    made = find_root(base.disk).made
    joe = read_ext4(one, "/etc/shadow").splitlines()[-1].split(":")
    assert (joe[0], int(joe[2])) == ("joe", made // 86400)


def folder(parent, name):
    (parent / name).mkdir()
    return parent / name


def test_a_qcow2_base_is_taken_too_and_the_rest_of_the_disk_is_kept(tmp_path, base):
    settings = Settings(folder=tmp_path, network=False, engine=rules.NAMESPACE)
    context = a_context(tmp_path, settings=settings)
    work = tmp_path / "work"
    work.mkdir()
    runner = Runner(log=tmp_path / "log")
    prepared = base.copy(work)
    packed = work / "base.qcow2"
    qcow2.convert(prepared.disk, "raw", packed, runner, doing="packing")
    subprocess.run(["qemu-img", "resize", "-q", packed, "8G"], check=True, timeout=60)
    prepared = replace(prepared, disk=packed, format="qcow2")
    accel = Acceleration(name="tcg")
    spec = a_spec(HEAD + "mkdir /srv/made\n")
    done = engine.customise(spec, prepared, work, context, runner, accel=accel)
    assert done.prepared.disk.stat().st_size == 8 * 2**30
    with done.prepared.disk.open("rb") as new, base.disk.open("rb") as old:
        assert new.read(2**20) == old.read(2**20)
    assert "/srv/made" in trees.files(done.prepared.disk)
    assert list(work.iterdir()) == [done.prepared.disk]


def test_a_command_that_fails_is_named_with_its_line_and_output(tmp_path, base):
    text = "mkdir /srv/a\nrun-command echo the reason >&2; exit 7\nmkdir /srv/b\n"
    with pytest.raises(BuildError, match=r"^image-specs/image:6: run-command echo the rea") as e:
        customised(tmp_path, base, rules.NAMESPACE, text)
    cause = e.value.__cause__
    assert isinstance(cause, CommandError)
    assert "the reason" in cause.tail
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["base.raw"]


APPLIANCE = """#!/bin/sh
echo 'libguestfs: trace: launch'
echo 'virt-sysprep: error: libguestfs error: no kernel can be read' >&2
exit 1
"""


def test_what_the_appliance_does_not_mend_is_told_by_the_namespaces_reason(
    tmp_path, base, monkeypatch
):
    """The appliance is a stand-in: that of this machine takes a minute, and starts."""
    program = tmp_path / "bin/virt-sysprep"
    program.parent.mkdir()
    program.write_text(APPLIANCE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    text = "mkdir /srv/a\nrun-command echo the reason >&2; exit 7\n"
    with pytest.raises(BuildError) as caught:
        customised(tmp_path, base, rules.AUTO, text)
    first, second = described(caught.value).split("; it was tried again in the appliance: ")
    assert first.startswith("image-specs/image:6: run-command echo the reason >&2; exit 7 failed:")
    assert second == "customising image failed: libguestfs error: no kernel can be read"
    before, after = " ".join(last_lines(caught.value)).split("in the appliance:")
    assert "the reason" in before
    assert "no kernel can be read" not in before
    assert "no kernel can be read" in after


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("firstboot-command id", "line 5: firstboot-command is the appliance's"),
        ("run-command mount -a", "looks at the machine"),
        ("link /:/srv/root\ncopy-in files/repo:/srv/root/etc", "leads elsewhere"),
        ("write /etc/mtab:x", "not of the guest's own files"),
    ],
)
def test_what_it_cannot_do_is_refused_where_nothing_else_is_allowed(tmp_path, base, text, why):
    with pytest.raises(BuildError, match=why):
        customised(tmp_path, base, rules.NAMESPACE, f"{text}\n")
