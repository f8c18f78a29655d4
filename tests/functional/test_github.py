"""Every request to GitHub fits GitHub's own description of its API."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lago_images.ci import environment as events
from lago_images.ci.environment import Target
from lago_images.ci.github import GitHubError, NotPermittedError, Reporter
from lago_images.jobs import results
from lago_images.planning import formats
from tests.support import prism
from tests.support.ci import failed, plan, planned
from tests.support.specs import SpecsRepo

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
# The author and text of the comment in GitHub's example answer.
AUTHOR, TEXT = "octocat", "Me too"
PULL = "https://github.com/octocat/Hello-World/pull/7"


@pytest.fixture(scope="module")
def github(tmp_path_factory):
    with prism.running(tmp_path_factory.mktemp("prism")) as server:
        yield server


def reporter(url: str, *, author: str = AUTHOR, pull: int | None = 7) -> Reporter:
    target = Target(repository="octocat/Hello-World", commit=SHA, pull_request=pull, api=url)
    return Reporter(target, "token", author=author)


def requests_of(github, call) -> list[str]:
    before = len(github.requests())
    call()
    return github.requests()[before:]


def test_our_comment_is_updated(github):
    made = requests_of(github, lambda: reporter(github.url).comment(TEXT, TEXT + ", newer"))
    assert [request.split()[0].upper() for request in made] == ["GET", "PATCH"]
    assert "/issues/comments/1" in made[1]


def test_a_comment_that_is_right_is_left_alone(github):
    made = requests_of(github, lambda: reporter(github.url).comment(TEXT, TEXT))
    assert [request.split()[0].upper() for request in made] == ["GET"]


@pytest.mark.parametrize(("author", "marker"), [("somebody", TEXT), (AUTHOR, "<!-- ours -->")])
def test_nobody_elses_comment_is_touched(github, author, marker):
    made = requests_of(github, lambda: reporter(github.url, author=author).comment(marker, "body"))
    assert [request.split()[0].upper() for request in made] == ["GET", "POST"]
    assert made[1].endswith("/repos/octocat/Hello-World/issues/7/comments")


def test_a_status_for_each_chain(github):
    states = {"debian-12": (True, "debian-12 built"), "el9": (False, "x" * 300)}
    made = requests_of(
        github,
        lambda: reporter(github.url).statuses(states, "https://github.com/o/r/actions/runs/1"),
    )
    assert [request.split()[0].upper() for request in made] == ["POST", "POST"]


def test_the_server_refuses_what_does_not_fit(github):
    """Else the tests above would prove nothing."""
    from github import Auth, Github, GithubException

    bare = Github(auth=Auth.Token("t"), base_url=github.url, retry=None)
    with pytest.raises(GithubException):
        bare.requester.requestJsonAndCheck(
            "POST", f"/repos/o/r/statuses/{SHA}", input={"state": "splendid"}
        )


def test_without_a_pull_request_there_is_no_comment(github):
    with pytest.raises(GitHubError):
        reporter(github.url, pull=None).comment("m", "b")


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(403, {"message": "Resource not accessible by integration"})

    do_POST = do_PATCH = do_GET  # noqa: N815 -- http.server's own names

    def answer(self, code, plain):
        body = json.dumps(plain).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class _RefusesStatuses(_Refuses):
    """A conversation whose first author is gone, and whose second is ours in other letters."""

    def do_GET(self):
        url = "http://127.0.0.1/repos/octocat/Hello-World/issues/comments/"
        ours = {"url": url + "2", "user": {"login": "Octocat"}, "body": TEXT}
        ours["html_url"] = f"{PULL}#2"
        self.answer(200, [{"url": url + "1", "user": None, "body": None}, ours])

    def do_POST(self):
        if "/statuses/" in self.path:
            super().do_GET()
        else:
            self.answer(201, {"html_url": f"{PULL}#1"})


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def readonly():
    with serving(_Refuses) as url:
        yield url


@pytest.fixture
def no_statuses():
    with serving(_RefusesStatuses) as url:
        yield url


def test_an_author_is_found_beside_one_who_is_gone_and_in_other_letters(no_statuses):
    assert reporter(no_statuses, author="oCTOCAT").comment(TEXT, TEXT) == f"{PULL}#2"


def test_a_github_that_is_away_is_told(monkeypatch):
    monkeypatch.setattr("lago_images.ci.github.Retry", lambda **_: None)
    with pytest.raises(GitHubError, match=r"commenting on pull request 7: .*cannot be reached"):
        reporter("http://127.0.0.1:1").comment("m", "b")


def test_a_read_only_token_is_told_apart(readonly):
    with pytest.raises(NotPermittedError, match="not accessible by integration"):
        reporter(readonly).comment("m", "b")
    with pytest.raises(NotPermittedError):
        reporter(readonly).statuses({"a": (True, "b")}, "https://x")


@pytest.fixture
def job(tmp_path):
    """A report job's folder: the plan, a failed build, the event of a pull request."""
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write("plan.json", formats.to_json(plan(planned("one", revision=0))))
    results.write_folder(repo.root / "results", [failed("one", error="boom\n::set-env x")])
    event = {"pull_request": {"number": 7, "head": {"sha": SHA}}}
    repo.write("event.json", json.dumps(event))
    return repo


def environ(repo, url: str) -> dict[str, str]:
    return {
        "GITHUB_REPOSITORY": "octocat/Hello-World",
        "GITHUB_EVENT_PATH": str(repo.root / "event.json"),
        "GITHUB_STEP_SUMMARY": str(repo.root / "summary.md"),
        "GITHUB_API_URL": url,
        "GITHUB_RUN_ID": "5",
        "GITHUB_TOKEN": "token",
    }


def test_the_command_comments(github, job):
    variables = environ(job, github.url)
    made = requests_of(github, lambda: check_ran(job.run("ci", "report", environ=variables)))
    assert sorted(request.split()[0].upper() for request in made) == ["GET", "POST", "POST"]


def check_ran(ran):
    assert ran.code == 0, ran.err
    assert "reported at https://github.com/" in ran.err


def test_the_command_falls_back_to_the_summary(readonly, job):
    ran = job.run("ci", "report", "--junit", "r.xml", environ=environ(job, readonly))
    assert ran.code == 0, ran.err
    assert "the report is in the step summary only" in ran.err
    assert "❌ failed" in (job.root / "summary.md").read_text()
    assert "boom" in (job.root / "r.xml").read_text()


def test_a_refused_status_keeps_no_comment_away(no_statuses, job):
    ran = job.run("ci", "report", environ=environ(job, no_statuses))
    assert ran.code == 0, ran.err
    assert f"reported at {PULL}#1" in ran.err
    assert "not accessible by integration: none is set" in ran.err


def test_outside_github_it_prints(job):
    ran = job.run("ci", "report")
    assert ran.code == 0, ran.err
    assert "❌ failed" in ran.out


def test_jenkins_comments_too(github, job):
    """Its merge is no commit that GitHub knows: the pull request's newest gets the statuses."""
    target = events.read({"CHANGE_URL": "https://github.com/octocat/Hello-World/pull/7"}).target
    url = github.url
    told = Reporter(replace(target, api=url), "token", author="jenkins-bot")
    made = requests_of(github, lambda: told.statuses({"one": (True, "one built")}, "https://ci/1"))
    assert [request.split()[0].upper() for request in made] == ["GET", "POST"]
    assert made[0].endswith("/repos/octocat/Hello-World/pulls/7")
    made = requests_of(github, lambda: told.comment("m", "b"))
    assert made[-1].endswith("/repos/octocat/Hello-World/issues/7/comments")


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://github.com/o/r/pull/3", "https://api.github.com"),
        ("https://git.example/o/r/pull/3", "https://git.example/api/v3"),
    ],
)
def test_jenkins_pull_request_is_found(url, api):
    found = events.read({"CHANGE_URL": url, "BUILD_URL": "https://ci/1/"})
    assert found.run == "https://ci/1/"
    assert found.target == Target(repository="o/r", commit="", pull_request=3, api=api)


def test_other_changes_are_not_githubs():
    url = "https://gitlab.example/o/r/-/merge_requests/3"
    assert events.read({"CHANGE_URL": url}).target is None
    assert events.read({}).target is None
