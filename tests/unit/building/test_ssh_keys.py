"""The unit by which a guest makes its ssh host keys: the same, whoever puts it there."""

import subprocess

from lago_images.building.bases.bootstrap import guest_files
from lago_images.building.customise import sysprep


def test_a_bootstrapped_guest_and_a_customised_one_get_the_same_unit(tmp_path):
    (tmp_path / "etc/ssh").mkdir(parents=True)
    guest_files.make_guest(tmp_path, guest_files.Guest(title="t", hostname="h", uuid="u"))
    unit = (tmp_path / "etc/systemd/system/ssh-host-keys.service").read_text()
    assert "ExecStart=/usr/bin/ssh-keygen -A\n" in unit
    # finish.sh up to its functions, then the line that writes the unit, elsewhere.
    script = sysprep._script("mark")
    head = script.split("\nhas()", 1)[0]
    [line] = [line for line in script.splitlines() if '"$SSH_KEYS_UNIT"' in line]
    written = tmp_path / "written"
    line = line.replace("/etc/systemd/system/ssh-host-keys.service", str(written))
    subprocess.run(["sh", "-euc", f"{head}\n{line}"], check=True, timeout=30)
    assert written.read_text() == unit
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=30)
