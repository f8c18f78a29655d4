"""Documents that several threads read at once."""

import signal
import subprocess
import sys

import pytest

# Each of many classes is new to all threads at once, and these change in the middle of all they do.
_READERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import make_dataclass
from threading import Barrier

from lago_images.repository.records.parsing import from_plain

THREADS = 8
sys.setswitchinterval(1e-6)
shared = {"SCHEMA": 1, "WHAT": "a document"}
together = Barrier(THREADS)

def read(plain, kind):
    together.wait()
    return from_plain(plain, kind, "here", strict=False)

with ThreadPoolExecutor(THREADS) as pool:
    for number in range(40):
        inner = make_dataclass("Inner", [(f"f{n}", int) for n in range(30)], frozen=True)
        kind = make_dataclass("Kind", [(f"a{n}", inner) for n in range(10)], namespace=shared)
        one = {f"f{n}": 1 for n in range(30)}
        plain = {"schema": 1} | {f"a{n}": one for n in range(10)}
        for each in pool.map(read, [plain] * THREADS, [kind] * THREADS):
            assert each.a9.f29 == 1
"""


def test_threads_that_read_documents_of_a_new_class_at_once_do_not_crash():
    done = subprocess.run(
        [sys.executable, "-c", _READERS], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == -signal.SIGSEGV:
        pytest.fail("Python crashed")
    assert done.returncode == 0, done.stderr
