"""What is sent with a disk, and how long a finished build waits for its store, as numbers."""

import io
import threading
from dataclasses import replace

import pytest

from lago_images.building.bases.prepared import Package
from lago_images.building.upload import SidecarFiles, retry_policy, send_sidecars, withdraw
from lago_images.console import Console
from lago_images.host.process import Children
from lago_images.repository.records.boot_files import BootFile, BootFiles
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, spec


def test_a_failed_upload_is_retried_for_three_minutes_and_reported_once():
    said, pauses = io.StringIO(), []
    made = retry_policy(Children(), Console(stream=said))
    quick = replace(made, sleep=pauses.append, chance=lambda: 0)
    assert quick.first == quick.attempts
    for attempt in range(1, quick.attempts):
        quick.wait(attempt, "uploading part 7: the store answered 503")
    assert 180 <= sum(pauses) < 300
    assert said.getvalue().count("part 7: the store answered 503: trying again") == 1


def test_every_file_beside_a_disk_is_sent_and_taken_back(tmp_path):
    log = tmp_path / "log"
    log.write_text("a line\n")
    sidecars = SidecarFiles(
        log=log,
        console_log=log,
        packages=(Package(name="bash", version="5.2", arch="amd64"),),
        boot_files=BootFiles.of([BootFile(path="/boot/vmlinuz", size=7, sha256="a" * 64)], []),
    )
    store, made = DirectoryStore(path=tmp_path / "repo"), manifest()
    send_sidecars(store, made, spec(), sidecars, retry_policy(Children(), Console(quiet=True)))
    to = made.key.staging
    sent = [to.hash, to.metadata, to.packages, to.boot_files, to.console, to.log]
    assert [stat.key for stat in store.list()] == sorted(sent)
    assert store.get(to.boot_files).data == b"a" * 64 + b" 7 /boot/vmlinuz\n"
    withdraw(store, made.key)
    assert not list(store.list())


def test_ctrl_c_ends_the_wait_between_attempts():
    children = Children()
    timer = threading.Timer(0.1, children.end)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        replace(retry_policy(children, Console(quiet=True)), delay=60, longest=60).wait(1, "")
    timer.join()
