"""Every request to GitHub fits GitHub's own description of its API."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lago_images.ci import environment as events
from lago_images.ci.environment import Target
from lago_images.ci.github import POLICY, GitHubError, NotPermittedError, Reporter
from lago_images.jobs import results
from lago_images.planning import formats
from tests.support import prism
from tests.support.ci import failed, plan, planned
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread
from tests.support.specs import SpecsRepo

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
# The author and text of the comment in GitHub's example answer.
AUTHOR, TEXT = "octocat", "Me too"
PULL = "https://github.com/octocat/Hello-World/pull/7"


@pytest.fixture(scope="module")
def github(tmp_path_factory):
    with prism.running(tmp_path_factory.mktemp("prism")) as server:
        yield server


def reporter(
    url: str, *, author: str = AUTHOR, pull: int | None = 7, pauses: list[float] | None = None
) -> Reporter:
    """A reporter that does not wait, and notes for how long it would have."""
    target = Target(repository="octocat/Hello-World", commit=SHA, pull_request=pull, api=url)
    policy = replace(POLICY, jitter=0, sleep=(pauses if pauses is not None else []).append)
    return Reporter(target, "token", author=author, policy=policy)


def requests_of(github, call) -> list[str]:
    before = len(github.requests())
    call()
    return github.requests()[before:]


def test_the_existing_comment_is_updated(github):
    made = requests_of(github, lambda: reporter(github.url).comment(TEXT, TEXT + ", newer"))
    assert [request.split()[0].upper() for request in made] == ["GET", "PATCH"]
    assert "/issues/comments/1" in made[1]


def test_an_up_to_date_comment_is_not_written_again(github):
    made = requests_of(github, lambda: reporter(github.url).comment(TEXT, TEXT))
    assert [request.split()[0].upper() for request in made] == ["GET"]


@pytest.mark.parametrize(("author", "marker"), [("somebody", TEXT), (AUTHOR, "<!-- ours -->")])
def test_comments_of_others_are_not_changed(github, author, marker):
    made = requests_of(github, lambda: reporter(github.url, author=author).comment(marker, "body"))
    assert [request.split()[0].upper() for request in made] == ["GET", "POST"]
    assert made[1].endswith("/repos/octocat/Hello-World/issues/7/comments")


def test_each_chain_gets_a_commit_status(github):
    states = {"debian-12": (True, "debian-12 built"), "el9": (False, "x" * 300)}
    made = requests_of(
        github,
        lambda: reporter(github.url).statuses(states, "https://github.com/o/r/actions/runs/1"),
    )
    assert [request.split()[0].upper() for request in made] == ["POST", "POST"]


def test_the_mock_server_refuses_requests_that_break_the_api(github):
    """Else the tests above would prove nothing."""
    from github import Auth, Github, GithubException

    bare = Github(auth=Auth.Token("t"), base_url=github.url, retry=None)
    with pytest.raises(GithubException):
        bare.requester.requestJsonAndCheck(
            "POST", f"/repos/o/r/statuses/{SHA}", input={"state": "splendid"}
        )


def test_a_run_without_a_pull_request_writes_no_comment(github):
    with pytest.raises(GitHubError):
        reporter(github.url, pull=None).comment("m", "b")


class _Refuses(QuietHandler):
    def do_GET(self):
        self.answer(403, {"message": "Resource not accessible by integration"})

    do_POST = do_PATCH = do_GET

    def answer(self, code, plain):
        self.read_body()
        body = json.dumps(plain).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


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
    with LoopbackServer(handler) as server, in_thread(server):
        yield server.url


@pytest.fixture
def readonly():
    with serving(_Refuses) as url:
        yield url


@pytest.fixture
def no_statuses():
    with serving(_RefusesStatuses) as url:
        yield url


def test_the_author_is_matched_in_any_case_beside_deleted_users(no_statuses):
    assert reporter(no_statuses, author="oCTOCAT").comment(TEXT, TEXT) == f"{PULL}#2"


def test_an_unreachable_github_is_reported():
    pauses: list[float] = []
    with pytest.raises(GitHubError, match=r"commenting on pull request 7: .*cannot be reached"):
        reporter("http://127.0.0.1:1", pauses=pauses).comment("m", "b")
    assert pauses == [1, 2, 4]


class Script:
    """Answers in order, whatever is asked: (status, headers, body); the last one again and again.

    A body that is text is sent as HTML. ``asked`` is method and path of each request.
    """

    def __init__(self, *answers: tuple[int, dict[str, str], object]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    @contextmanager
    def served(self):
        script = self

        class Handler(QuietHandler):
            def do_GET(self):
                self.read_body()
                script.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                left = script.answers
                status, headers, body = left.pop(0) if left[1:] else left[0]
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                kind = "text/html" if isinstance(body, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_PATCH = do_GET

        with serving(Handler) as url:
            yield url


COMMENTS = "/repos/octocat/Hello-World/issues/7/comments"
STATUS = f"/repos/octocat/Hello-World/statuses/{SHA}"
NONE: tuple[int, dict[str, str], object] = (200, {}, [])
DONE: tuple[int, dict[str, str], object] = (201, {}, {"id": 1, "html_url": f"{PULL}#1"})
HTML = "<html><body>Sign in</body></html>"
DATE = "Thu, 26 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        ((502, {}, HTML), 1),
        ((503, {"Retry-After": "7"}, {"message": "Unicorn"}), 7),
        ((429, {"Retry-After": "30"}, {"message": "Too many requests"}), 30),
        ((403, {"Retry-After": "60"}, {"message": "You have exceeded a secondary rate limit"}), 60),
        ((403, {}, {"message": "You have exceeded a secondary rate limit. Wait."}), 60),
        (
            (
                403,
                {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795694430", "Date": DATE},
                {"message": "API rate limit exceeded"},
            ),
            30,
        ),
    ],
)
def test_a_temporary_refusal_of_github_is_retried(answer, pause):
    """A 403 is a rate limit or a missing permission: headers and body say which."""
    pauses: list[float] = []
    script = Script(NONE, answer, NONE, DONE)
    with script.served() as url:
        assert reporter(url, pauses=pauses).comment("m", "b") == f"{PULL}#1"
    assert script.asked == [f"GET {COMMENTS}", f"POST {COMMENTS}"] * 2
    assert pauses == [pause]


def test_a_comment_whose_response_was_lost_is_not_written_twice():
    pauses: list[float] = []
    user = {"login": AUTHOR}
    url = "http://127.0.0.1/repos/octocat/Hello-World/issues/comments/1"
    written = {"url": url, "user": user, "body": "m b", "html_url": f"{PULL}#9"}
    script = Script(NONE, (502, {}, HTML), (200, {}, [written]))
    with script.served() as url:
        assert reporter(url, pauses=pauses).comment("m", "m b") == f"{PULL}#9"
    assert script.asked == [f"GET {COMMENTS}", f"POST {COMMENTS}", f"GET {COMMENTS}"]


def test_a_long_rate_limit_is_not_waited_for():
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795696800", "Date": DATE}
    script = Script((403, headers, {"message": "API rate limit exceeded"}))
    pauses: list[float] = []
    with (
        script.served() as url,
        pytest.raises(GitHubError, match=r"403 API rate limit exceeded") as caught,
    ):
        reporter(url, pauses=pauses).comment("m", "b")
    assert not isinstance(caught.value, NotPermittedError)
    assert caught.value.hint == "the rate limit ends in 40 minutes"
    assert pauses == []


def test_a_failed_status_does_not_prevent_the_others():
    script = Script((500, {}, {}), (500, {}, {}), (500, {}, {}), (500, {}, {}), DONE)
    states = dict.fromkeys("abc", (True, "built"))
    with script.served() as url, pytest.raises(GitHubError, match="setting statuses on 6dcb09b5b5"):
        reporter(url).statuses(states, "https://x")
    # Four attempts at the first, and one at each of the others.
    assert script.asked == [f"POST {STATUS}"] * 6


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, HTML),
        (200, {}, {"message": "welcome"}),
        (200, {}, "null"),
        (301, {"Location": "https://git.example/api/v3/x"}, HTML),
        (307, {"Location": "https://git.example/api/v3/x"}, {"message": "Moved"}),
        (200, {"Link": '<https://git.example/api/v3/x?page=2>; rel="next"'}, []),
    ],
)
def test_an_answer_that_is_not_githubs_api_is_one_error_line(answer):
    """A login page, a proxy, or a server whose canonical name is another."""
    script = Script(answer)
    with script.served() as url, pytest.raises(GitHubError) as caught:
        reporter(url).comment("m", "b")
    assert caught.value.message.startswith("commenting on pull request 7: ")
    assert re.search(r"is not GitHub's API|no answer of its API", caught.value.message)
    assert "\n" not in caught.value.message
    assert len(script.asked) <= 2
    with script.served() as url, pytest.raises(GitHubError):
        reporter(url).statuses({"a": (True, "b")}, "https://x")


def test_a_failed_comment_does_not_prevent_statuses(job):
    script = Script((400, {}, {"message": "Problems parsing JSON"}), DONE)
    with script.served() as url:
        ran = job.run("ci", "report", "--junit", "r.xml", environ=environ(job, url))
    assert ran.code == 1
    assert "commenting on pull request 7: GitHub answered 400 Problems parsing JSON" in ran.err
    assert script.asked == [f"GET {COMMENTS}", f"POST {STATUS}"]
    assert "❌ failed" in (job.root / "summary.md").read_text()


def test_a_read_only_token_is_reported_as_such(readonly):
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


def test_ci_report_writes_a_comment(github, job):
    variables = environ(job, github.url)
    made = requests_of(github, lambda: check_ran(job.run("ci", "report", environ=variables)))
    assert sorted(request.split()[0].upper() for request in made) == ["GET", "POST", "POST"]


def check_ran(ran):
    assert ran.code == 0, ran.err
    assert "reported at https://github.com/" in ran.err


def test_ci_report_falls_back_to_the_step_summary(readonly, job):
    ran = job.run("ci", "report", "--junit", "r.xml", environ=environ(job, readonly))
    assert ran.code == 0, ran.err
    assert "the report is in the step summary only" in ran.err
    assert "❌ failed" in (job.root / "summary.md").read_text()
    assert "boom" in (job.root / "r.xml").read_text()


def test_a_refused_status_does_not_prevent_the_comment(no_statuses, job):
    ran = job.run("ci", "report", environ=environ(job, no_statuses))
    assert ran.code == 0, ran.err
    assert f"reported at {PULL}#1" in ran.err
    assert "not accessible by integration: none is set" in ran.err


def test_outside_github_the_report_is_printed(job):
    ran = job.run("ci", "report")
    assert ran.code == 0, ran.err
    assert "❌ failed" in ran.out


def test_jenkins_writes_the_comment(github, job):
    """Its merge is no commit that GitHub knows: the pull request's newest gets the statuses."""
    target = events.read({"CHANGE_URL": "https://github.com/octocat/Hello-World/pull/7"}).target
    url = github.url
    ours = Reporter(replace(target, api=url), "token", author="jenkins-bot")
    made = requests_of(github, lambda: ours.statuses({"one": (True, "one built")}, "https://ci/1"))
    assert [request.split()[0].upper() for request in made] == ["GET", "POST"]
    assert made[0].endswith("/repos/octocat/Hello-World/pulls/7")
    made = requests_of(github, lambda: ours.comment("m", "b"))
    assert made[-1].endswith("/repos/octocat/Hello-World/issues/7/comments")


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://github.com/o/r/pull/3", "https://api.github.com"),
        ("https://git.example/o/r/pull/3", "https://git.example/api/v3"),
        ("https://git.example:8443/o/r/pull/3", "https://git.example:8443/api/v3"),
        ("https://octocorp.ghe.com/o/r/pull/3", "https://api.octocorp.ghe.com"),
    ],
)
def test_the_pull_request_of_a_jenkins_job_is_found(url, api):
    found = events.read({"CHANGE_URL": url, "BUILD_URL": "https://ci/1/"})
    assert found.run == "https://ci/1/"
    assert found.target == Target(repository="o/r", commit="", pull_request=3, api=api)


def test_changes_on_other_hosts_are_not_reported_to_github():
    url = "https://gitlab.example/o/r/-/merge_requests/3"
    assert events.read({"CHANGE_URL": url}).target is None
    assert events.read({}).target is None
