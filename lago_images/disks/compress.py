"""Compress a disk file into one xz stream, in one pass with every checksum.

7-Zip's encoder needs half of liblzma's processor time for the same size. Where it is not installed
liblzma does the same with more. ``docs/benchmarks.md`` has what both cost.
"""

import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from errno import ENXIO
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from lago_images.console import Advance
from lago_images.disks import xz
from lago_images.disks.checksums import Checksums, Digests
from lago_images.errors import BuildError
from lago_images.host.process import Runner, search_path
from lago_images.host.threads import Workers, result, side_by_side

if TYPE_CHECKING:
    from concurrent.futures import Future

PROGRAM = "7zz"
# 7-Zip's settings of each level, from liblzma's size at that level down, for less of its time. At
# levels 0 and 1 liblzma is as good.
_BY_7ZIP = {
    2: "fb=16:mf=hc4:mc=4",
    3: "fb=16:mf=bt4:mc=4",
    4: "fb=16:mf=bt4:mc=4",
    5: "fb=32:mf=bt4:mc=4",
    6: "fb=32:mf=bt4:mc=6",
    7: "fb=32:mf=bt4:mc=16",
    8: "fb=64:mf=bt4:mc=32",
    9: "fb=64:mf=bt4:mc=32",
}
# Bytes of memory that 7-Zip takes for each of ``threads``, measured: docs/benchmarks.md.
THREAD_MEMORY = 400 * 2**20
_ZEROS = bytes(xz.BLOCK_SIZE)
_PIECE = 2**20
_PIPE = -1  # subprocess.PIPE, which only host may import


class Compression:
    """The xz stream of a disk file, made while it is iterated over, once.

    With 7-Zip it takes up to ``THREAD_MEMORY`` bytes a thread; with liblzma no more than
    ``threads + 2`` blocks are in memory at a time, and blocks of zeros are compressed once.
    """

    def __init__(
        self,
        disk: Path,
        *,
        level: int,
        threads: int,
        advance: Advance | None,
        runner: Runner | None,
    ) -> None:
        self._disk = disk
        self._level = level
        self._threads = threads
        self._advance = advance or (lambda _amount: None)
        self._runner = runner
        self._digests: Digests | None = None

    @property
    def digests(self) -> Digests:
        """Return the digests, known once the stream has ended.

        Raises:
            BuildError: The stream was not read to its end.
        """
        if self._digests is None:
            raise BuildError(f"{self._disk} was not compressed to its end")
        return self._digests

    def __iter__(self) -> Iterator[bytes]:
        sums = Checksums()
        for chunk, plain in self._stream(sums):
            sums.add_stream(chunk)
            yield chunk
            self._advance(plain)
        self._digests = sums.digests

    def _stream(self, sums: Checksums) -> Iterator[tuple[bytes, int]]:
        """Yield pieces of the stream, each with the number of bytes of the disk it stands for."""
        yield xz.HEADER, 0
        records: list[tuple[int, int]] = []
        runner = self._runner
        if runner and self._level in _BY_7ZIP and has_7zip(runner):
            blocks = self._by_7zip(sums, runner)
        else:
            blocks = self._by_liblzma(sums)
        for block in blocks:
            records.append((block.unpadded, block.size))
            yield block.data, block.size
        if sum(size for _, size in records) != sums.digests.size:
            raise BuildError(f"{self._disk} was not compressed whole")
        yield xz.ending(records), 0

    def _by_liblzma(self, sums: Checksums) -> Iterator[xz.Block]:
        zeros: Future[xz.Block] | None = None
        with _pool(self._threads) as (workers, check):
            pending: deque[Future[xz.Block]] = deque()
            for data in sums.of_disk(blocks(self._disk)):
                if data is not _ZEROS:
                    pending.append(workers.submit(xz.encode, data, self._level, check))
                else:
                    zeros = zeros or workers.submit(xz.encode, data, self._level, check)
                    pending.append(zeros)
                if len(pending) > self._threads + 1:
                    yield result(pending.popleft())
            while pending:
                yield result(pending.popleft())

    def _by_7zip(self, sums: Checksums, runner: Runner) -> Iterator[xz.Block]:
        argv = by_7zip(self._level, self._threads)
        failures: list[BaseException] = []
        with runner.started(argv, stdin=_PIPE, stdout=_PIPE, stderr=_PIPE) as program:
            to, out, err = program.stdin, program.stdout, program.stderr
            assert to and out and err  # noqa: S101, PT018 -- pipes were asked for

            def feed() -> None:
                try:
                    with to:
                        for data in sums.of_disk(blocks(self._disk)):
                            to.write(data)
                except BrokenPipeError:
                    # It has ended, and its exit code has the reason.
                    pass
                except Exception as error:  # noqa: BLE001 -- raised by the reader
                    failures.append(error)

            feeder = Thread(target=feed, name="7zz-input", daemon=True)
            feeder.start()
            try:
                yield from xz.blocks_of(iter(lambda: out.read(_PIECE), b""))
                feeder.join()
                reason = f"exit code {program.returncode}" if program.wait() else ""
            except ValueError as error:
                reason = str(error)
            finally:
                # Before its pipe is closed under the hands of who writes to it.
                program.kill()
                feeder.join()
            runner.children.check()
            if failures:
                raise failures[0]
            if reason:
                why = err.read(_PIECE).decode(errors="replace").strip() or reason
                raise BuildError(f"compressing {self._disk}: {PROGRAM} failed: {why}")


def by_7zip(level: int, threads: int) -> list[str]:
    """Return the command by which 7-Zip compresses its stdin at one of the levels 2 to 9.

    Args:
        level: As ``compress`` takes it.
        threads: How many blocks it works on at once.
    """
    search = _BY_7ZIP[level]
    # Blocks of 32 MiB are 1.2 % smaller than those of 16, and still more than clients have
    # processors for.
    method = f"LZMA2:c=32m:d=32m:a=1:{search}"
    # Of a block that is searched by trees one thread finds the matches that another encodes, and
    # both wait for one another.
    count = threads * (2 if "bt4" in search else 1)
    # fmt: off
    return [
        # -bso0, -bsp0: no messages and no progress among the stream on stdout.
        PROGRAM, "a", "-txz", f"-m0={method}", f"-mmt={count}",
        "-bso0", "-bsp0", "-an", "-si", "-so",
    ]
    # fmt: on


def fitting_threads(memory: int, processors: int) -> int:
    """Return how many threads may compress side by side in so many bytes of memory: at least one.

    7-Zip that has too little is killed, and the build with it, where fewer threads take longer.
    """
    return max(1, min(processors, memory // THREAD_MEMORY))


def has_7zip(runner: Runner) -> bool:
    """Return whether 7-Zip is installed."""
    return shutil.which(PROGRAM, path=search_path(runner.environ)) is not None


def compress(
    disk: Path,
    *,
    level: int,
    threads: int,
    advance: Advance | None = None,
    runner: Runner | None = None,
) -> Compression:
    """Return the xz stream of a disk file, with its checksums once that has been read.

    Args:
        disk: The file; must not change meanwhile.
        level: 0 to 9: about the size of xz's preset, or less.
        threads: How many compress side by side; see ``fitting_threads``.
        advance: Progress callback, with the number of bytes done.
        runner: Starts 7-Zip; without one it is liblzma that compresses.
    """
    return Compression(
        disk,
        level=level,
        threads=threads,
        advance=advance,
        runner=runner,
    )


def blocks(disk: Path) -> Iterator[bytes]:
    """Yield a file in blocks; every full block of zeros is the same object."""
    with disk.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, xz.BLOCK_SIZE):
            length = min(xz.BLOCK_SIZE, size - start)
            if _data_after(file.fileno(), start, size) >= start + length:
                data = _ZEROS[:length]
            else:
                data = _read(file.fileno(), start, length, disk)
            yield _ZEROS if data == _ZEROS else data


def _data_after(fd: int, start: int, size: int) -> int:
    """Return the offset of a file's next data; its size when the rest is a hole."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        # lseek(2): no data from there to the end.
        if error.errno == ENXIO:
            return size
        raise


def _read(fd: int, start: int, length: int, disk: Path) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.pread(fd, length - len(data), start + len(data))
        if not piece:
            raise BuildError(f"{disk} became shorter while it was compressed")
        if len(piece) == length:
            return piece
        data += piece
    return bytes(data)


@contextmanager
def _pool(threads: int) -> Generator[tuple[Workers, Callable[[], None]]]:
    """Yield threads that end soon when the work does, and the check by which theirs is ended."""
    is_over = Event()

    def check() -> None:
        if is_over.is_set():
            raise KeyboardInterrupt

    with side_by_side(threads, "xz") as workers:
        try:
            yield workers, check
        finally:
            is_over.set()
