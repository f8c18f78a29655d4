"""How much of a machine a process may use, by what the kernel says of it and of its cgroups."""

import pytest

from lago_images.host.allowance import Allowance, allowance

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return what is allowed on a machine of 16 GiB and 8 processors with some files below /."""

    def read(files=()):
        for name, text in {"proc/meminfo": f"MemAvailable: {16 * 2**20} kB", **dict(files)}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return allowance(tmp_path)

    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    return read


ALL = Allowance(memory=16 * GIB, processors=8)
TWO = "0::/ci.slice/build.scope"
ONE = "5:cpuset:/job\n4:memory:/docker/job\n1:cpu,cpuacct:/docker/job\n0::/"


def test_without_cgroups_all_of_it_may_be_used(machine):
    assert machine() == ALL


@pytest.mark.parametrize("folder", ["", "ci.slice/", "ci.slice/build.scope/"])
def test_the_groups_own_limits_and_those_above_it_count(machine, folder):
    found = machine(
        {
            "proc/self/cgroup": TWO,
            f"sys/fs/cgroup/{folder}memory.max": 4 * GIB,
            f"sys/fs/cgroup/{folder}cpu.max": "200000 100000",
        }
    )
    assert found == Allowance(memory=4 * GIB, processors=2)


@pytest.mark.parametrize("folder", ["", "docker/", "docker/job/"])
def test_so_do_those_of_version_1(machine, folder):
    found = machine(
        {
            "proc/self/cgroup": ONE,
            f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": 4 * GIB,
            f"sys/fs/cgroup/cpu/{folder}cpu.cfs_quota_us": 200000,
            f"sys/fs/cgroup/cpu/{folder}cpu.cfs_period_us": 100000,
        }
    )
    assert found == Allowance(memory=4 * GIB, processors=2)


def test_a_containers_view_of_its_group_counts(machine):
    """Its path is the host's, or leads out of what it sees, and its own group is the root."""
    for path in ("/docker/job", "/../../job"):
        found = machine(
            {
                "proc/self/cgroup": f"0::{path}",
                "sys/fs/cgroup/memory.max": 4 * GIB,
                "sys/fs/cgroup/cpu.max": "200000 100000",
            }
        )
        assert found == Allowance(memory=4 * GIB, processors=2)


def test_another_groups_limits_do_not_count(machine):
    other = "sys/fs/cgroup/ci.slice/other.scope/"
    files = {f"{other}memory.max": 4 * GIB, f"{other}cpu.max": "200000 100000"}
    assert machine({"proc/self/cgroup": TWO, **files}) == ALL


@pytest.mark.parametrize(
    ("memory", "processors"),
    [("max", "max 100000"), (2**63, "6400000 100000"), ("", "")],
    ids=["max", "more than there is", "nothing"],
)
def test_no_limit_is_none(machine, memory, processors):
    files = {"sys/fs/cgroup/memory.max": memory, "sys/fs/cgroup/cpu.max": processors}
    assert machine({"proc/self/cgroup": "0::/", **files}) == ALL


def test_version_1_says_no_limit_by_minus_one(machine):
    files = {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}
    assert machine({f"sys/fs/cgroup/cpu/{name}": text for name, text in files.items()}) == ALL


@pytest.mark.parametrize(("quota", "processors"), [(1000, 1), (100000, 1), (150000, 2)])
def test_a_part_of_a_processor_is_one(machine, quota, processors):
    assert machine({"sys/fs/cgroup/cpu.max": f"{quota} 100000"}).processors == processors
