"""A bucket that nobody can read is noticed by who has a key: publish, doctor and verify ask."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from lago_images.repository.verifying.web import base_url_problem
from tests.servers.model import Server
from tests.support.policies import published_bucket
from tests.support.specs import SpecsRepo
from tests.tools import need

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def repo(tmp_path):
    need("git", "qemu-img")
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("disk.raw", size=1 << 16)
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    return repo


def published(repo: SpecsRepo, server: Server, bucket: str, base_url: str = ""):
    """Publish to a bucket whose base URL is its own, or another."""
    repo.environ.update(server.environ)
    repo.environ["LAGO_IMAGES_REPOSITORY"] = f"s3://{bucket}"
    repo.environ["LAGO_IMAGES_BASE_URL"] = base_url or f"{server.endpoint}/{bucket}"
    return repo.run("ci", "rebuild", "--all")


def base_url_check(repo: SpecsRepo):
    checks = repo.run("doctor", "--format", "json").json()["checks"]
    return next(check for check in checks if check["name"] == "base-url")


def findings(repo: SpecsRepo):
    url = repo.environ["LAGO_IMAGES_BASE_URL"]
    ran = repo.run("repo", "verify", "--format", "json")
    return [one for one in ran.json()["findings"] if one["where"] == url]


def test_an_unreadable_bucket_is_a_problem_with_the_policy_to_apply(repo, ceph20):
    ran = published(repo, ceph20, ceph20.new_bucket())
    assert ran.code == 1
    assert "nobody can read s3://" in ran.err
    assert "docs/policies" in ran.err
    check = base_url_check(repo)
    assert check["state"] == "missing"
    assert "docs/policies" in check["do"]
    [finding] = findings(repo)
    assert finding["severity"] == "problem"
    assert "docs/policies" in finding["repair"]


def test_a_bucket_with_the_public_policy_has_no_problem(repo, ceph20):
    ran = published(repo, ceph20, published_bucket(ceph20))
    assert ran.code == 0, ran.err
    url = repo.environ["LAGO_IMAGES_BASE_URL"]
    assert base_url_check(repo) == {"name": "base-url", "state": "ok", "found": url, "do": ""}
    assert findings(repo) == []


def test_a_wrong_base_url_is_a_problem(repo, ceph20):
    """Ceph answers 404 there: in a bucket of that name nobody published."""
    bucket = published_bucket(ceph20)
    ran = published(repo, ceph20, bucket, f"{ceph20.endpoint}/{bucket}-moved")
    assert ran.code == 1
    assert "base-url" in ran.err
    assert [one["severity"] for one in findings(repo)] == ["problem"]


def test_a_base_url_that_only_clients_reach_is_a_note(repo, ceph20):
    ran = published(repo, ceph20, published_bucket(ceph20), NOBODY)
    assert ran.code == 0, ran.err
    assert "is not known" in ran.err
    assert base_url_check(repo)["state"] == "warning"
    assert [one["severity"] for one in findings(repo)] == ["note"]


@pytest.fixture
def answering():
    """Serve one status for whatever is asked, and count the requests."""
    servers = []

    def serve(status):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args): ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/repo", asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "severity"),
    [(200, None), (401, "note"), (403, "problem"), (404, "problem"), (503, "note")],
)
def test_readability_is_judged_by_one_request(answering, status, severity):
    """A password is meant, a server that fails may recover; 403 and 404 are S3's answers."""
    url, asked = answering(status)
    bucket: Any = SimpleNamespace(url="s3://bucket/repo")
    finding = base_url_problem(bucket, url, {})
    assert (finding.severity if finding else None) == severity
    assert asked == ["/repo/index"]


def test_the_base_url_of_a_directory_is_not_requested(answering):
    url, asked = answering(404)
    folder: Any = SimpleNamespace(url="file:///repo")
    assert base_url_problem(folder, url, {}) is None
    assert asked == []
