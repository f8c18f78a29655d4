"""How much room a build is said to take, and what it does with less."""

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building import reservations
from lago_images.building.bases.prepared import FinishedBase
from lago_images.building.customise.namespace.kept_packages import KeptPackages
from lago_images.disks.compress import THREAD_MEMORY
from lago_images.errors import CommandError, HostError
from lago_images.host.process import Children, Runner
from lago_images.repository.records.state import StoredBuild
from lago_images.settings import Settings
from lago_images.specs.model import Operation
from tests.support.builders import manifest, spec
from tests.support.images import a_context

GIB = 2**30
NEVER = threading.TIMEOUT_MAX


def test_installing_operations_enlarge_the_estimate(tmp_path):
    plain = reservations.disk_size(spec("it", "bootstrap:debian-12"), None, tmp_path)
    assert (
        reservations.disk_size(spec("it", "bootstrap:debian-12", "update"), None, tmp_path) > plain
    )


def test_a_layer_needs_the_size_of_its_base(tmp_path):
    made = manifest()
    base = StoredBuild(manifest=made, folder=made.key.staging)
    layer = spec("it", "layer:one")
    assert reservations.disk_size(layer, base, tmp_path) == base.manifest.disk.size


def test_a_layer_on_a_base_of_this_run_needs_the_size_of_its_disk(tmp_path):
    base = FinishedBase(name="one", disk=tmp_path / "disk.qcow2", fingerprint="")
    base.disk.write_bytes(b"x" * 5000)
    assert reservations.disk_size(spec("it", "layer:one"), base, tmp_path) == 5000


@pytest.mark.parametrize(
    ("base", "engine", "commands", "copies"),
    [
        ("layer:one", "auto", True, 4),
        ("layer:one", "auto", False, 2),
        ("layer:one", "appliance", True, 2),
        ("bootstrap:debian-12", "namespace", True, 3),
        ("libguestfs:x", "auto", True, 2),
    ],
)
def test_what_is_there_at_once_is_reserved(base, engine, commands, copies):
    made = spec("it", base)
    touch = Operation(name="touch", argument="/x", line=5)
    made = replace(made, operations=(touch,) if commands else ())
    assert reservations._copies(made, None, engine) == copies


def test_the_disk_of_a_base_of_this_run_is_not_there_twice():
    base = FinishedBase(name="one", disk=Path("disk.qcow2"), fingerprint="")
    touch = Operation(name="touch", argument="/x", line=5)
    made = replace(spec("it", "layer:one"), operations=(touch,))
    assert reservations._copies(made, base, "auto") == 3
    assert reservations._copies(made, None, "auto") == 4


@pytest.mark.parametrize(("engine", "copies"), [("auto", 3), ("appliance", 0)])
def test_room_is_reserved_for_the_packages_that_are_given(tmp_path, engine, copies):
    context = a_context(tmp_path, settings=Settings(folder=tmp_path, engine=engine))
    made = spec("it", "bootstrap:debian-12", "update")
    [before, _] = reservations.needs(made, None, tmp_path, context)
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched/lago_1_all.deb").write_bytes(b"x" * 5000)
    KeptPackages.of(made, context).keep(tmp_path / "fetched")
    [after, _] = reservations.needs(made, None, tmp_path, context)
    assert after.size - before.size == copies * 5000


@pytest.mark.parametrize(
    ("published", "bytes_needed"), [(4 * GIB, 12 * GIB), (100, 3 * (GIB + GIB))]
)
def test_to_build_again_takes_the_room_to_build_or_to_compare(tmp_path, published, bytes_needed):
    made = spec("it", "bootstrap:debian-12", "update")
    context = a_context(tmp_path)
    need = reservations.need_again(made, None, tmp_path, context, published=published)
    assert (need.folder, need.size) == (tmp_path, bytes_needed)


@pytest.mark.parametrize(("name", "factor"), [("disk.img", 1), ("disk.img.xz", 6)])
def test_the_size_of_a_local_disk_is_estimated_from_its_file(tmp_path, name, factor):
    (tmp_path / name).write_bytes(b"x" * 2**20)
    assert reservations.disk_size(spec("it", f"simple:{name}"), None, tmp_path) == factor * 2**20


def test_holes_need_no_disk_space(tmp_path):
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(100 * GIB)
    assert reservations.disk_size(spec("it", "simple:disk.img"), None, tmp_path) < 2**20


def test_an_unknown_size_is_estimated(tmp_path):
    assert (
        reservations.disk_size(spec("it", "simple:https://example.org/disk.img"), None, tmp_path)
        > GIB
    )
    assert reservations.disk_size(spec("it", "libguestfs:fedora-40"), None, tmp_path) > 2 * GIB


def test_an_image_waits_for_disk_space_while_chains_run_and_fails_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("lago_images.host.space.free", lambda folder: 10)
    shared, waited = reservations.Reservations(), []

    def need(size):
        return [reservations.Need(folder=tmp_path, size=size, purpose="building it")]

    def enough():
        waited.append(1)
        raise InterruptedError

    with shared.worker(), shared.reserve(need(6), enough), shared.worker():
        with pytest.raises(InterruptedError), shared.reserve(need(5), enough):
            pytest.fail("there is no room")
        with shared.reserve(need(4), enough):
            pass
    assert waited == [1]
    with (
        shared.worker(),
        pytest.raises(HostError, match=r"building it needs .*11 bytes"),
        shared.reserve(need(11), enough),
    ):
        pytest.fail("there is no room")
    assert waited == [1]


def stop():
    raise KeyboardInterrupt


def test_needs_on_one_file_system_are_not_added(tmp_path, monkeypatch):
    """The disk that is worked on is gone when the finished one is stored."""
    monkeypatch.setattr("lago_images.host.space.free", lambda folder: 10)
    both = [reservations.Need(folder=tmp_path / name, size=9, purpose="it") for name in ("a", "b")]
    shared = reservations.Reservations()
    with shared.worker(), shared.reserve(both, pytest.fail):
        # One of them is taken: 1 byte of 10 is left, and who needs 2 waits.
        with shared.reserve([replace(both[0], size=1)], pytest.fail):
            pass
        with pytest.raises(KeyboardInterrupt), shared.reserve([replace(both[0], size=2)], stop):
            pytest.fail("there is no room")


def a_machine(folder, monkeypatch, *, available, processors, limit="max"):
    """Return what would be read of a machine with so many GiB and processors."""
    (folder / "proc").mkdir()
    (folder / "sys/fs/cgroup").mkdir(parents=True)
    text = f"MemTotal:       99999999 kB\nMemAvailable:   {available * 2**20} kB\n"
    (folder / "proc/meminfo").write_text(text)
    (folder / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(processors)))
    return reservations.this_machine(folder)


@pytest.mark.parametrize(
    ("available", "processors", "limit", "guests"),
    [
        (8, 2, "max", 2),
        (8, 2, str(4 * GIB), 1),
        (2, 2, "max", 1),
        (64, 1, "max", 2),
        (64, 2, "max", 2),
        (64, 16, "max", 16),
        (16, 16, "max", 2),
    ],
)
def test_guests_and_a_compression_share_the_machine(
    tmp_path, monkeypatch, available, processors, limit, guests
):
    """Four chains on 2 processors and 8 GiB: two guests of 2.25 GiB, and 0.8 GiB of 7-Zip."""
    found = a_machine(
        tmp_path, monkeypatch, available=available, processors=processors, limit=limit
    )
    assert found.guests == guests


@pytest.mark.parametrize(
    ("gib", "processors", "threads", "guests"),
    [(8, 64, 9, 1), (4, 16, 1, 1), (16, 32, 24, 1), (8, 2, 2, 2), (64, 16, 16, 16), (1, 4, 1, 1)],
)
def test_a_compression_takes_what_one_guest_leaves(gib, processors, threads, guests):
    """Of three quarters of the memory that may be used."""
    machine = reservations.Machine(gib * GIB // 4 * 3, processors)
    assert (machine.threads, machine.guests) == (threads, guests)
    taken = threads * THREAD_MEMORY + guests * reservations._GUEST
    assert taken <= gib * GIB or threads == guests == 1


def test_a_disk_is_compressed_by_as_many_threads_as_the_machine_has_memory_for(
    tmp_path, monkeypatch
):
    found = a_machine(tmp_path, monkeypatch, available=8, processors=64)
    assert found.threads == 9


def test_guests_and_compressions_beyond_the_machine_wait():
    machine = reservations.Machine(8 * GIB // 4 * 3, 2)
    lock, running, most = threading.Lock(), {"guest": 0, "compression": 0}, {}

    def work(kind):
        with getattr(machine, kind)(lambda: None):
            with lock:
                running[kind] += 1
                most[kind] = max(most.get(kind, 0), running[kind])
            time.sleep(0.01)
            with lock:
                running[kind] -= 1

    kinds = [kind for kind in running for _ in range(8)]
    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most["guest"] <= 2
    assert most["compression"] == 1
    assert machine.guests == 2


def test_waiting_for_the_machine_ends_with_the_run():
    machine, children = reservations.Machine(0, 1), Children()
    with machine.guest(children.check), machine.compression(children.check):
        children.end()
        with pytest.raises(KeyboardInterrupt), machine.compression(children.check):
            pytest.fail("another disk is compressed")


# Only what ends it lets a test end. Its child holds the pipe, as an appliance does.
SLEEPS = ["sh", "-c", "sleep infinity & wait"]


def test_a_program_is_stopped_when_the_disk_is_full(tmp_path):
    free = iter([GIB, 33 * 2**20, 2**20])
    with (
        pytest.raises(
            HostError, match=rf"^doing it was stopped: no room in {tmp_path}.*1048576 b"
        ) as e,
        reservations.watched(
            Runner(), tmp_path, "doing it", free=lambda folder: next(free), every=0.01
        ) as safe,
    ):
        safe.run(SLEEPS)
    assert "TMPDIR" in e.value.hint


def test_a_program_that_ends_by_itself_is_left_alone(tmp_path):
    looks = itertools.count()
    with reservations.watched(
        Runner(), tmp_path, "doing it", free=lambda folder: GIB + next(looks), every=NEVER
    ) as safe:
        safe.run(["true"])
    with (
        pytest.raises(CommandError, match="exit code 1"),
        reservations.watched(Runner(), tmp_path, "doing it", every=NEVER) as safe,
    ):
        safe.run(["false"])
    assert next(looks) == 1


def test_the_end_of_a_run_stops_the_watched_program(tmp_path):
    children = Children()
    timer = threading.Timer(0.3, children.end)
    timer.start()
    with (
        pytest.raises(KeyboardInterrupt),
        reservations.watched(
            Runner(children=children), tmp_path, "doing it", free=lambda folder: GIB, every=0.01
        ) as safe,
    ):
        safe.run(SLEEPS)
    timer.join()
