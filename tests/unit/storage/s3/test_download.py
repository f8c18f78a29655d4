"""Downloads in pieces side by side."""

import io
import os
import signal
import threading
from typing import Any

import pytest

from lago_images.host.threads import UNAWAITED
from lago_images.storage.s3 import download

DATA = b"abcdefgh"


class SlowBucket:
    """Has an object of two pieces; with the second it waits."""

    where = "a bucket"

    def __init__(self) -> None:
        self.bulk = self
        self.go = threading.Event()

    def key(self, key):
        return key

    def call(self, _doing, function, **arguments):
        return function(**arguments)

    def get_object(self, *, Key, Range):  # noqa: N803 -- boto3's
        begin, end = map(int, Range.removeprefix("bytes=").split("-"))
        if begin:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self.go.wait()
        return {
            "Body": io.BytesIO(DATA[begin : end + 1]),
            "ContentRange": f"bytes {begin}-{end}/{len(DATA)}",
            "ContentLength": end + 1 - begin,
            "ETag": '"1"',
        }


def test_a_piece_that_is_left_at_ctrl_c_goes_into_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SAVED_PIECE", len(DATA) // 2)
    bucket: Any = SlowBucket()
    other = tmp_path / "other"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            download.save(bucket, "key", tmp_path / "saved", lambda _amount: None)
    finally:
        signal.signal(signal.SIGINT, before)
    # The system gives the lowest number that is free.
    descriptor = os.open(other, os.O_WRONLY | os.O_CREAT)
    bucket.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith(UNAWAITED):
            thread.join()
    os.close(descriptor)
    assert other.read_bytes() == b""
    assert (tmp_path / "saved").read_bytes() == DATA
