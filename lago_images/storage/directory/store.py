"""Keep objects in a directory, with the promises of a store in a bucket.

A write goes to a file of its own in the hidden folder, is flushed to the disk, and gets its name
in one step, under a lock for conditional writes. Readers need no lock. What a killed writer left
in the hidden folder is an unfinished upload.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lago_images.console import Advance, Console
from lago_images.errors import ConflictError, NotFoundError, StorageError, UnreadableError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import (
    Blob,
    ContentDigest,
    Headers,
    Stat,
    Unfinished,
    Uploaded,
    remaining,
)
from lago_images.storage.directory.files import (
    PRIVATE,
    check,
    clone,
    failed,
    link,
    make_folder,
    pieces,
    place,
    prune,
    save,
    sizes,
    status_of,
    sync_folder,
    walk,
    write,
)

UNREADABLE_HINT = "give this user, and the web server's, the right to read the file"
PLAIN_HEADERS = Headers()


# A writer's folder is named so until its file is locked, long before that is as old as this.
_BEGUN = "begun-"
_YOUNG_NS = 60 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryStore:
    """DirectoryStore keeps objects as files below a folder. See ``base.Store`` for the contract.

    A missing folder is an empty store; the first write makes it. An ETag is made of the
    file's size, inode and modification time, which every write here moves on, so nothing is read
    to list. ``headers`` are not kept: ``repository.layout.headers`` tells a web server what holds.

    Attributes:
        path: The folder.
        clock_ns: Nanoseconds since the epoch.
    """

    path: Path
    clock_ns: Callable[[], int] = time.time_ns

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path:
        return self.path

    def ensure_safe_writes(self, *, single_writer: bool, console: Console) -> None:
        del single_writer, console
        self.prove_writable()

    def list(
        self, prefix: str = "", *, marks: Sequence[str] = (), without: Collection[str] = ()
    ) -> Iterator[Stat]:
        del marks
        try:
            if not self.path.exists():
                return
            for key, status in walk(self.path, prefix, without):
                yield _stat(key, status)
        except OSError as error:
            raise failed(f"listing {self.path}", error) from error

    def sizes(
        self, prefix: str, keys: Collection[str], *, marks: Sequence[str] = ()
    ) -> dict[str, int]:
        del prefix, marks
        try:
            return sizes(self.path, keys)
        except OSError as error:
            raise failed(f"looking at files in {self.path}", error) from error

    def head(self, key: str) -> Stat:
        with self._open(key) as fd:
            return _stat(key, os.fstat(fd))

    def get(self, key: str) -> Blob:
        with self._open(key) as fd:
            etag = _etag(os.fstat(fd))
            return Blob(key=key, data=b"".join(pieces(fd, 0)), etag=etag)

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        with self._open(key) as fd:
            yield from pieces(fd, start)

    def check_readable(self, key: str) -> None:
        next(iter(self.read(key)), None)

    def download(self, key: str, path: Path, *, advance: Advance | None = None) -> None:
        save(self.read(key), path, advance)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        expected: str | None,
        headers: Headers = PLAIN_HEADERS,
        retry: RetryPolicy | None = None,
    ) -> str:
        del headers, retry
        with self._temporary(key) as (fd, temporary):
            write(fd, data)
            # Before it has its name: a loss of power could leave the name without the bytes.
            os.fsync(fd)
            with self._locked():
                target = place(self.path, key)
                now = status_of(target)
                if (now and _etag(now)) != expected:
                    how = "it exists already" if expected is None else "it has changed"
                    raise ConflictError(f"writing {key}: {how}")
                self._name(fd, temporary, target, now)
            return _etag(os.fstat(fd))

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        headers: Headers = PLAIN_HEADERS,
        advance: Advance | None = None,
        retry: RetryPolicy | None = None,
    ) -> Uploaded:
        del headers, retry
        sha256 = hashlib.sha256()
        with self._temporary(key) as (fd, temporary):
            for chunk in chunks:
                write(fd, chunk)
                sha256.update(chunk)
                if advance:
                    advance(len(chunk))
            os.fsync(fd)
            with self._locked():
                target = place(self.path, key)
                if status_of(target):
                    raise ConflictError(f"uploading {key}: it exists already")
                self._name(fd, temporary, target, None)
            size = os.fstat(fd).st_size
        return Uploaded(key=key, size=size, sha256=sha256.hexdigest())

    def copy(
        self,
        source: str,
        target: str,
        *,
        etag: str,
        size: int,
        sha256: str,
        headers: Headers = PLAIN_HEADERS,
    ) -> None:
        del headers
        expected = ContentDigest(size=size, sha256=sha256)
        with self._open(source) as original, self._temporary(target) as (fd, temporary):
            if _etag(os.fstat(original)) != etag:
                raise ConflictError(f"copying {source}: it has changed since it was judged")
            clone(original, fd)
            os.fsync(fd)
            # The copy is read, not the source, which others may write to at any time.
            digest = hashlib.sha256()
            for piece in pieces(fd, 0):
                digest.update(piece)
            actual = ContentDigest(size=os.fstat(fd).st_size, sha256=digest.hexdigest())
            expected.check_copy(source, target, actual)
            with self._locked():
                path = place(self.path, target)
                if status_of(path):
                    raise ConflictError(f"copying {source} to {target}: the target exists already")
                self._name(fd, temporary, path, None)

    def delete(self, keys: Iterable[str]) -> None:
        failures: list[StorageError] = []
        for key in keys:
            try:
                self._delete(key)
            except StorageError as error:
                failures.append(error)
        if failures:
            raise remaining(failures) from failures[0]

    def _delete(self, key: str) -> None:
        try:
            target = place(self.path, key)
            if target.parent.is_dir():
                with self._locked():
                    target.unlink(missing_ok=True)
                    # Under the lock, or a writer's new folder could go before it has its file.
                    sync_folder(target.parent)
                    prune(target.parent, self.path)
        except OSError as error:
            raise failed(f"deleting {key} in {self.path}", error) from error

    def prove_writable(self) -> None:
        """Write a file and remove it, and what killed writers left of theirs.

        A missing folder is missing afterwards, too. Raises ``StorageError`` where nothing
        can be written.
        """
        is_new = not self.path.exists()
        with self._temporary("probe") as (fd, _):
            write(fd, b"probe")
        if is_new:
            for folder in (self._uploads, self._uploads.parent, self.path):
                with suppress(OSError):
                    folder.rmdir()
        for upload in self.unfinished():
            if self._is_abandoned(upload):
                self.abort(upload)

    def _is_abandoned(self, upload: Unfinished) -> bool:
        """Decide whether nobody writes it any more: the lock of a writer goes with its process."""
        path = self._uploads / upload.upload_id / upload.key
        try:
            is_young = self.clock_ns() - path.stat().st_mtime_ns < _YOUNG_NS
            if is_young and upload.upload_id.startswith(_BEGUN):
                return False
            # NFS gives this lock only on a file that is open for writing.
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        try:
            for folder in sorted(self._uploads.iterdir()) if self._uploads.is_dir() else ():
                for key, status in walk(folder, prefix):
                    yield Unfinished(key=key, upload_id=folder.name, begun=status.st_ctime)
        except OSError as error:
            raise failed(f"listing unfinished uploads in {self.path}", error) from error

    def abort(self, upload: Unfinished) -> None:
        check(upload.upload_id)
        with suppress(FileNotFoundError):
            try:
                shutil.rmtree(self._uploads / upload.upload_id)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise failed(f"aborting the upload of {upload.key}", error) from error

    @property
    def _uploads(self) -> Path:
        return self.path / PRIVATE / "uploads"

    @contextmanager
    def _open(self, key: str) -> Iterator[int]:
        """Open the file of a key for reading."""
        doing = f"reading {key} in {self.path}"
        try:
            fd = os.open(place(self.path, key), os.O_RDONLY | os.O_CLOEXEC)
        # A file is in the place of a folder: then there is nothing below it.
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"{doing}: it is missing") from error
        except PermissionError as error:
            raise UnreadableError(f"{doing}: {error.strerror}", hint=UNREADABLE_HINT) from error
        except OSError as error:
            raise failed(doing, error) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotFoundError(f"{doing}: it is a folder")
            yield fd
        except OSError as error:
            raise failed(doing, error) from error
        finally:
            os.close(fd)

    @contextmanager
    def _temporary(self, key: str) -> Iterator[tuple[int, Path]]:
        """Make a file for a key's content; nothing of it is left at the end."""
        check(key)
        folder = self._uploads / uuid.uuid4().hex
        begun = folder.with_name(_BEGUN + folder.name)
        try:
            (begun / key).parent.mkdir(parents=True)
            # The umask decides, as for any file: a web server may have to read it.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(begun / key, flags, 0o666)
            try:
                # Until here nobody can tell a writer from one that was killed.
                fcntl.flock(fd, fcntl.LOCK_EX)
                begun.rename(folder)
                yield fd, folder / key
            finally:
                os.close(fd)
        except OSError as error:
            raise failed(f"writing {key} in {self.path}", error) from error
        finally:
            for left in (begun, folder):
                shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all writers of this directory, threads and processes."""
        # A file that stays: whoever removed it would let two writers lock two files of that name.
        fd = os.open(self.path / PRIVATE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _name(self, fd: int, temporary: Path, target: Path, before: os.stat_result | None) -> None:
        """Give a written file its name: after it, readers see the new object."""
        now = self.clock_ns()
        if before is not None:
            # Two versions of one key never share a modification time, however coarse the clock.
            now = max(now, before.st_mtime_ns + 1)
        os.utime(fd, ns=(now, now))
        make_folder(target.parent)
        if before is None:
            link(temporary, target)
        else:
            temporary.replace(target)
        sync_folder(target.parent)


def _etag(status: os.stat_result) -> str:
    # The inode, too: a file that another program puts in its place may keep time and size.
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _stat(key: str, status: os.stat_result) -> Stat:
    return Stat(key=key, size=status.st_size, etag=_etag(status), modified=status.st_mtime)
