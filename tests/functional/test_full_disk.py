"""A build whose work directory is full: it ends, and says why."""

import os
import re

from tests.support.small_filesystem import run_in_small_filesystem

# As an appliance whose QEMU has paused: it has filled the disk's folder, and waits.
FILLS = """\
#!/usr/bin/env python3
import sys, time
disk = sys.argv[sys.argv.index("--add") + 1]
try:
    with open(disk, "wb") as file:
        while True:
            file.write(bytes(1 << 20))
except OSError:
    pass
print("waiting", flush=True)
time.sleep(600)
"""
BUILD = """
import sys
from pathlib import Path
from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise.sysprep import customise
from lago_images.errors import Error
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord
from tests.support.images import a_context, a_spec

work, outside = map(Path, sys.argv[1:])
spec = a_spec("#base=layer:b\\n#arch=x86_64\\n#distro=d\\nupdate\\n")
disk = Prepared(
    disk=work / "disk", format="raw", record=BaseRecord(ref="b", digest="d"), packages=()
)
try:
    customise(
        spec, disk, work, a_context(outside), Runner(), accel=Acceleration(name="tcg")
    )
except Error as error:
    print(type(error).__name__, error.message, error.hint, sep="\\n")
print(sorted(path.name for path in work.iterdir()))
"""


def test_a_full_disk_fails_the_customisation_instead_of_hanging_it(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/virt-sysprep").write_text(FILLS)
    (tmp_path / "bin/virt-sysprep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    work = tmp_path / "work"
    kind, message, hint, left = run_in_small_filesystem(
        work, "48m", BUILD, str(tmp_path)
    ).splitlines()
    assert kind == "HostError"
    stopped = f"customising image was stopped: no room in {re.escape(str(work))}, where "
    assert re.match(stopped + r"[0-9.]+ (B|KiB|MiB) \([0-9]+ bytes\)", message)
    assert hint == "free some space, or set TMPDIR to a larger file system"
    assert left == "['disk']"
