"""Ctrl-C while a store or a web server says nothing any more.

The servers are silent until the test has ended, so a command that ends has waited for no answer.
One that waits for a time limit asks again: no request may come twice.
"""

import signal
import threading
import urllib.request
from collections import Counter
from contextlib import contextmanager

import pytest

from lago_images.repository.records import layout
from lago_images.storage.s3.store import S3Store
from tests.servers.proxy import Fault, FaultProxy
from tests.support import builders
from tests.support.running import command_line
from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git")
HANGS = 200
MIB = 2**20


class Silence:
    """Says nothing any more from the first request of a kind on."""

    def __init__(self, is_first) -> None:
        self._is_first = is_first
        self._over = threading.Event()
        self.begun = threading.Event()
        self.requests = []

    def __call__(self, request):
        if not self.begun.is_set() and not self._is_first(request):
            return None
        self.requests.append((request.method, request.target, request.headers.get("range")))
        self.begun.set()
        return Fault(before=self._wait, reset=True)

    def _wait(self) -> None:
        self._over.wait()

    def end(self) -> None:
        self._over.set()


@contextmanager
def silent_from(endpoint, is_first):
    """Pass requests on until one is of a kind."""
    silence = Silence(is_first)
    with FaultProxy(endpoint, silence) as proxy:
        try:
            yield proxy.endpoint, silence
        finally:
            silence.end()


def running(repo, *args, environ):
    """Run the command line in a process of its own."""
    return command_line(*args, folder=repo.root, environ=repo.env(environ), longest=HANGS)


def interrupted(run, silence):
    """Press Ctrl-C when the server is silent; return the exit code and what was said."""
    assert silence.begun.wait(HANGS)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    asked = Counter(silence.requests)
    assert [each for each, times in asked.items() if times > 1] == [], said
    return run.returncode, said


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("disk.img")
    for name in ("one", "two"):
        repo.spec(name, "simple:disk.img")
    repo.commit()
    return repo


@pytest.fixture
def bucket(moto, repo):
    """A bucket with two images that wait to be published."""
    name = moto.new_bucket()
    repo.environ.update(
        {
            **moto.environ,
            "LAGO_IMAGES_REPOSITORY": f"s3://{name}",
            # Where nobody is: it is not looked whether clients can read it.
            "LAGO_IMAGES_BASE_URL": "http://127.0.0.1:1",
            "LAGO_IMAGES_COMPRESSION_LEVEL": "0",
        }
    )
    built = repo.run("ci", "build", "one", "two")
    assert built.code == 0, built.err
    return name


@pytest.fixture
def published(repo, bucket):
    """The same when they are published."""
    ran = repo.run("ci", "publish")
    assert ran.code == 0, ran.err
    return bucket


def gets(folder):
    return lambda request: request.method == "GET" and f"/{folder}" in request.target.split("?")[0]


def puts(folder):
    return lambda request: request.method == "PUT" and f"/{folder}" in request.target


@pytest.mark.parametrize(
    "command", [("repo", "list"), ("ci", "plan"), ("repo", "verify"), ("ci", "publish")]
)
def test_a_store_that_lists_and_answers_no_get_is_not_waited_for(moto, repo, published, command):
    moto.client().delete_object(Bucket=published, Key="state/cache.json")
    with (
        silent_from(moto.endpoint, gets("releases/")) as (endpoint, silence),
        running(repo, *command, environ={"AWS_ENDPOINT_URL_S3": endpoint}) as run,
    ):
        code, said = interrupted(run, silence)
    assert code == 130, said


@pytest.mark.parametrize(
    "is_first",
    [gets("index"), puts("state/probe/"), puts("images/"), puts("releases/"), puts("catalogue/")],
    ids=["reading", "probe", "copy", "release", "pages"],
)
@pytest.mark.usefixtures("bucket")
def test_a_publication_is_ended_whatever_the_store_does_not_answer(moto, repo, is_first):
    with (
        silent_from(moto.endpoint, is_first) as (endpoint, silence),
        running(repo, "ci", "publish", environ={"AWS_ENDPOINT_URL_S3": endpoint}) as run,
    ):
        code, said = interrupted(run, silence)
    assert code == 130, said
    assert "next: the same command publishes the rest" in said
    again = repo.run("ci", "publish")
    assert again.code == 0, again.err
    listed = repo.run("repo", "list", "--format", "json").json()["images"]
    assert {(each["name"], each["revision"]) for each in listed} == {("one", 1), ("two", 1)}


def test_a_web_server_that_answers_nothing_is_not_waited_for(repo):
    with (
        silent_from("http://127.0.0.1:1", lambda _request: True) as (url, silence),
        running(repo, "repo", "verify", url, environ={}) as run,
    ):
        code, said = interrupted(run, silence)
    assert code == 130, said


def test_serving_a_bucket_ends_while_a_client_waits_for_its_store(moto, repo, published):
    """Ctrl-C is how it is ended, which is no failure."""
    store = S3Store.open(published, environ=moto.environ)
    disk = builders.copy_of(builders.manifest("a", "1")).disk
    store.upload(disk, [bytes(40 * MIB)], headers=layout.headers(disk))
    builders.put_release(store, builders.release(1, "1", name="a"))

    def is_second_piece(request):
        asked = request.headers.get("range", "")
        return request.target.endswith(disk) and asked > "" and not asked.startswith("bytes=0-")

    with (
        silent_from(moto.endpoint, is_second_piece) as (endpoint, silence),
        running(repo, "serve", "--port", "0", environ={"AWS_ENDPOINT_URL_S3": endpoint}) as run,
    ):
        url = run.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{url}/{disk}", timeout=HANGS) as answer:
            assert answer.read(12 * MIB) == bytes(12 * MIB)
            code, said = interrupted(run, silence)
    assert code == 0, said
