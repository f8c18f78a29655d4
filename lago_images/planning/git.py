"""Ask git, as the only user of GitPython, and only as far as planning needs it.

A clone may be shallow: what is missing is fetched when it is asked for, step by step. All paths
are relative to the folder a ``Git`` was made for, with ``/``, also where git's own root is above.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, Self

# GitPython's import runs git, with all of the environment, and fails on a machine without git,
# which may have no use for it. A git that cannot be run is not run.
os.environ |= {"GIT_PYTHON_REFRESH": "quiet", "GIT_PYTHON_GIT_EXECUTABLE": os.devnull}

from git import cmd
from git.exc import CommandError, GitCommandNotFound

from lago_images.errors import GitError, ToolMissingError, UsageError
from lago_images.host.process import ALLOWED
from lago_images.host.redaction import redacted
from lago_images.planning.git_output import (
    LOG_FORMAT,
    Change,
    Commit,
    Snapshot,
    parse_changes,
    parse_index,
    parse_log,
    parse_status,
)

FETCH_SECONDS = 600
# A fixed language, because messages are read; no questions, because nobody may be there to answer;
# and no write to the index, because another git may be at work.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}
# What git may see of the environment besides what every child may: what it needs to fetch, and
# who called sudo, which git asks before it refuses a clone of somebody else's.
_FETCHING = frozenset(
    {
        *("SSH_AUTH_SOCK", "SSH_ASKPASS", "SUDO_UID", "USER", "LOGNAME", "XDG_CONFIG_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"),
    }
)
# Set by git for its hooks and aliases: they say which repository is meant, and it is not ours.
_REPOSITORY = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
        *("GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE"),
        *("GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_CEILING_DIRECTORIES"),
        *("GIT_INTERNAL_SUPER_PREFIX", "GIT_CONFIG"),
    }
)
# How env ends when there is no such program.
_NO_PROGRAM = 127


class Program:
    """Git, called in a folder; with variables of its own environment, if any."""

    def __init__(self, folder: Path, own: Mapping[str, str] = MappingProxyType({})) -> None:
        self._own = [f"{name}={value}" for name, value in own.items()]
        self._git = cmd.Git(str(folder))
        self._git.update_environment(**_ENVIRONMENT)

    def close(self) -> None:
        """End what git processes are left."""
        self._git.clear_cache()

    def ask(self, *arguments: str) -> str | None:
        """Return the output; None when git fails."""
        try:
            return self.run(*arguments).strip()
        except GitError:
            return None

    def run(self, *arguments: str, stdin: Iterable[str] = (), end: str = "\n") -> str:
        """Return the output, with the lines of ``stdin`` as its input, each with its ``end``.

        Raises:
            GitError: Git fails.
            ToolMissingError: There is no git.
        """
        with TemporaryFile() as given:
            given.write(os.fsencode("".join(f"{line}{end}" for line in stdin)))
            given.seek(0)
            return self._execute(arguments, given)

    def _execute(self, arguments: Sequence[str], stdin: IO[bytes]) -> str:
        # Only what asks a remote may hang: a diff of a large history may take its time.
        limit = FETCH_SECONDS if arguments[0] in {"fetch", "ls-remote"} else None
        try:
            return str(
                self._git.execute(
                    [*_without_others(os.environ), *self._own, "git", *arguments],
                    stdin.fileno(),
                    kill_after_timeout=limit,
                    strip_newline_in_stdout=False,
                )
            )
        except CommandError as error:
            # What GitPython starts is env, so it does not notice that there is no git.
            if isinstance(error, GitCommandNotFound) or error.status == _NO_PROGRAM:
                missing = ToolMissingError("git is not installed", hint="apt-get install git")
                raise missing from error
            # GitPython quotes the output; and a remote's URL in it may hold a token.
            output = redacted(str(error.stderr).strip().removeprefix("stderr:").strip(" '\n"))
            hint = None
            # Another user's clone may have settings that run programs (CVE-2022-24765).
            if "dubious ownership" in output:
                hint = "git config --global --add safe.directory FOLDER, if you trust its owner"
            raise GitError(
                f"git {arguments[0]} failed: {output or error.status}", hint=hint
            ) from error


def _without_others(names: Iterable[str]) -> list[str]:
    """Return the start of a command that runs git without what it may not see of the environment.

    ``names`` are those of all variables.
    """
    # By env, because GitPython hands on all of the environment and can only add to it.
    kept = _FETCHING.union(ALLOWED, _ENVIRONMENT)
    others = (name for name in names if name not in kept)
    hidden = [name for name in others if name in _REPOSITORY or not name.startswith("GIT_")]
    return ["env", *(f"--unset={name}" for name in sorted(hidden))]


# An object's id, of SHA-1 or SHA-256.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
MOST_COMMITS = 2000
_FEW = 3
_MOST_FETCHED = 20
_STEPS = (50, 500, 5000)


class Git:
    """Ask the git repository that a folder is in."""

    def __init__(self, folder: Path) -> None:
        """Raise ``GitError`` if git cannot use the folder; ``find`` is for when it may not."""
        self.folder = folder
        self._program = Program(folder)
        self._run, self._ask = self._program.run, self._program.ask
        self.prefix = self._run("rev-parse", "--show-prefix").strip()

    @property
    def top(self) -> Path:
        """Return the work tree that the folder is in, or is."""
        return self.folder / self._run("rev-parse", "--show-cdup").strip()

    @classmethod
    def find(cls, folder: Path) -> "Git | None":
        """Return the repository that ``folder`` is in; None outside git.

        Raises:
            GitError: There is one, and git refuses to use it.
            ToolMissingError: There is one, and no git.
        """
        if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
            return None
        return cls(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what git processes are left."""
        self._program.close()

    def export(self, commit: str, folder: Path) -> "Git":
        """Check a commit out into a new folder, which has no history, and change nothing here.

        Returns the repository of the folder in it that is this one's.

        Raises:
            GitError: Git cannot check it out.
        """
        objects = self._run("rev-parse", "--git-path", "objects").strip()
        algorithm = self._run("rev-parse", "--show-object-format").strip()
        # No template: its hooks would be run.
        options = ("--quiet", "--template=", f"--object-format={algorithm}")
        self._run("init", *options, str(folder))
        alternates = folder / ".git/objects/info/alternates"
        alternates.parent.mkdir(parents=True, exist_ok=True)
        # gitrepository-layout(5): objects are looked for there, too, and are not copied.
        alternates.write_text(f"{(self.folder / objects).absolute()}\n", encoding="utf-8")
        # Of a shallow clone, the commit's parents are missing, and are not asked for.
        (folder / ".git/shallow").write_text(f"{commit}\n", encoding="ascii")
        checkout = Program(folder)
        checkout.run("checkout", "--quiet", "--detach", commit)
        checkout.close()
        return Git(folder / self.prefix)

    def head(self) -> str | None:
        """Return the commit that is checked out; None before the first one."""
        return self._ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def resolve(self, rev: str) -> str:
        """Return the commit that a person's ``rev`` means: a branch, a tag, an id.

        An id, or a remote's branch as ``REMOTE/BRANCH``, is fetched if the clone lacks it.
        Raises ``UsageError`` when there is none.
        """
        commit = None
        if rev and not rev.startswith("-"):
            commit = self._ask("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
            if commit is None and (self.ensure(rev) or self._fetch_branch(rev)):
                commit = self._ask("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
        if commit is None:
            raise UsageError(
                f"there is no commit {rev!r} in this clone, and its remote does not give it",
                hint=self._how_to_get(rev),
            )
        return commit

    def _how_to_get(self, rev: str) -> str:
        """Return what to do about a missing revision: one counted back from another has no name."""
        remote = self.remote()
        if remote is None:
            return "name one that git log --all shows: this clone has no remote to have others from"
        if "~" not in rev and "^" not in rev:
            return f"fetch it first: git fetch {remote} {rev.removeprefix(f'{remote}/')}"
        if self.shallow:
            return (
                f"this clone is shallow: git fetch --unshallow {remote}, or on GitHub "
                "fetch-depth: 0 for actions/checkout"
            )
        return "the history is shorter than that: name a commit or a branch"

    def snapshot(self, paths: Iterable[str]) -> Snapshot:
        """Read what git knows of the files below ``paths``."""
        wanted = sorted(set(paths))
        listing = self._run("ls-files", "-s", "-v", "-z", "--", *wanted)
        status = self._run(
            # A monitor's answer is not taken: it may be a program of anyone's, or out of date.
            *("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "-z", "--no-renames"),
            *("--untracked-files=no", "--no-show-stash", "--ignore-submodules=none"),
            *("--", *wanted),
        )
        entries, flagged = parse_index(listing)
        changed, dirty = parse_status(status, self.prefix)
        # Git does not look at a file that is marked as assumed unchanged: it is hashed like a
        # changed one. One that is missing is left out of a sparse checkout.
        flagged = {path for path in flagged if (self.folder / path).exists()}
        return Snapshot(
            entries=entries,
            changed=frozenset(changed | flagged),
            dirty=frozenset(dirty | flagged),
        )

    def changes(self, old: str, new: str, paths: Iterable[str] = ()) -> tuple[Change, ...]:
        """Return the files below ``paths`` that differ between two commits, renames detected."""
        listing = self._run(
            *("diff", "--name-status", "-z", "--find-renames", "--relative", "--no-ext-diff"),
            *("--ignore-submodules=none", old, new, "--", *sorted(set(paths))),
        )
        return tuple(parse_changes(listing))

    def commits(
        self, old: str, new: str, paths: Iterable[str] = ()
    ) -> Mapping[str, tuple[Commit, ...]]:
        """Return, by path, the commits of ``new`` that ``old`` does not have, newest first.

        Looks at the newest ``MOST_COMMITS`` that touch ``paths``.
        """
        listing = self._run(
            *("log", "-z", "--name-only", "--no-renames", "--relative", "--no-show-signature"),
            *(f"--format={LOG_FORMAT}", f"--max-count={MOST_COMMITS}"),
            *(f"{old}..{new}", "--", *sorted(set(paths))),
        )
        return parse_log(listing, cut=self.shallow)

    @property
    def shallow(self) -> bool:
        """Return whether history is cut off somewhere."""
        return self._run("rev-parse", "--is-shallow-repository").strip() == "true"

    def has(self, commit: str) -> bool:
        """Return whether the clone has the commit, without asking a remote."""
        return not self.missing([commit])

    def missing(self, commits: Iterable[str]) -> frozenset[str]:
        """Return those of ``commits`` that the clone does not have, without asking a remote."""
        wanted = sorted(set(commits))
        known = [commit for commit in wanted if COMMIT.fullmatch(commit)]
        lines = self._run("cat-file", "--batch-check", stdin=known).splitlines()
        present = {
            commit for commit, line in zip(known, lines, strict=True) if line.split()[1] == "commit"
        }
        return frozenset(wanted) - present

    def ensure(self, commit: str) -> bool:
        """Have the commit in the clone, fetching it if need be; False when it cannot be had."""
        if not COMMIT.fullmatch(commit):
            return False
        if self.has(commit):
            return True
        # Without a depth a shallow clone would get all of the commit's history.
        depth = ("--depth=1",) if self.shallow else ()
        if self._fetch(*depth, wanted=[commit]) and self.has(commit):
            return True
        # Some servers give no commit by its id (uploadpack.allowAnySHA1InWant), so its branch
        # has to bring it.
        remote = self.remote()
        if not remote or not self._fetch(wanted=[f"+refs/heads/*:refs/remotes/{remote}/*"]):
            return False
        return self.has(commit) or any(self.has(commit) for _ in self._deepened([]))

    def ensure_all(self, commits: Iterable[str]) -> frozenset[str]:
        """Have many commits in the clone; returns those that cannot be had."""
        lost = self.missing(commits)
        # Each fetch of one commit is a connection: many are found faster in a longer history.
        if len(lost) > _FEW:
            for _ in self._deepened([]):
                lost = self.missing(lost)
                if not lost:
                    break
        return frozenset(
            commit
            for number, commit in enumerate(sorted(lost))
            if number >= _MOST_FETCHED or not self.ensure(commit)
        )

    def is_ancestor(self, old: str, new: str) -> bool | None:
        """Return whether ``old`` is ``new`` or in its history.

        None when that cannot be known: a commit is lost, or the history between is cut off in
        this clone and cannot be fetched.
        """
        if not (self.ensure(old) and self.ensure(new)):
            return None

        def is_known() -> bool:
            return self._ask("merge-base", "--is-ancestor", old, new) is not None

        if is_known():
            return True
        # Across the cut of a shallow clone git answers no where the truth may be yes.
        if any(is_known() for _ in self._deepened([old, new])):
            return True
        return None if self.shallow else False

    def strangers(self, commits: Iterable[str], new: str) -> frozenset[str]:
        """Return those of ``commits`` not seen in the history of ``new``; all must be in the clone.

        One call for many; in a shallow clone a stranger may still turn out an ancestor.
        """
        wanted = frozenset(commits)
        if not wanted:
            return wanted
        listing = self._run("rev-list", "--stdin", stdin=[*sorted(wanted), f"^{new}"])
        return wanted & frozenset(listing.split())

    def merge_base(self, first: str, second: str) -> str | None:
        """Return the newest commit both come from; None when there is none or it cannot be had."""
        if not (self.ensure(first) and self.ensure(second)):
            return None
        commit = self._ask("merge-base", first, second)
        steps = self._deepened([first, second])
        while commit is None and next(steps, None) is not None:
            commit = self._ask("merge-base", first, second)
        return commit

    def fork(self, rev: str, head: str) -> str:
        """Return the commit at which ``head`` left the history of a person's ``rev``.

        Raises ``UsageError`` when there is no such revision, or nothing in common.
        """
        commit = self.merge_base(self.resolve(rev), head)
        if commit is None:
            raise UsageError(f"{rev} and the commit checked out have no history in common")
        return commit

    def _deepened(self, wanted: Sequence[str]) -> Iterator[int]:
        """Make the history of the wanted commits longer, as often as the caller goes on."""
        for step in (*_STEPS, 0):
            if not self.shallow:
                return
            how = f"--deepen={step}" if step else "--unshallow"
            # A server that gives no commit by its id still makes its branches longer.
            if not self._fetch(how, wanted=wanted) and not self._fetch(how):
                return
            yield step

    def _fetch_branch(self, rev: str) -> bool:
        """Fetch ``REMOTE/BRANCH``, which a CI's clone of one pull request may not have."""
        remote, _, branch = rev.partition("/")
        if not branch or remote not in self._run("remote").split():
            return False
        depth = ("--depth=1",) if self.shallow else ()
        wanted = f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"
        return self._fetch(*depth, wanted=[wanted], remote=remote)

    def _fetch(self, *options: str, wanted: Sequence[str] = (), remote: str | None = None) -> bool:
        remote = remote or self.remote()
        if remote is None:
            return False
        # No gc in the background, which would lock the clone of a job that ends at once.
        basic = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-gc")
        return self._ask("fetch", *basic, *options, remote, *wanted) is not None

    def remote_tip(self, ref: str) -> str | None:
        """Ask the remote for the commit that it has at ``ref`` now; None when it has no such ref.

        Raises ``GitError`` when it does not answer, and when there is no remote.
        """
        remote = self.remote()
        if remote is None:
            raise GitError("this clone has no remote")
        # ls-remote takes a pattern: refs/heads/x also gives refs/heads/a/refs/heads/x.
        lines = self._run("ls-remote", "--quiet", remote, ref).splitlines()
        return next((line.split("\t")[0] for line in lines if line.endswith(f"\t{ref}")), None)

    def tips(self, refs: str) -> tuple[str, ...]:
        """Return the commits that the clone's refs below ``refs`` are at."""
        listing = self._run("for-each-ref", "--format=%(objectname)", refs)
        return tuple(listing.split())

    def committed(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the files below ``paths`` that the commit checked out has."""
        if self.head() is None:
            return frozenset()
        listing = self._run("ls-tree", "-r", "-z", "--name-only", "HEAD", "--", *sorted(set(paths)))
        return frozenset(listing.split("\0")[:-1])

    def ignored(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the files below ``paths`` that git does not know and leaves alone."""
        options = ("--others", "--ignored", "--exclude-standard", "-z")
        listing = self._run("ls-files", *options, "--", *sorted(set(paths)))
        return frozenset(listing.split("\0")[:-1])

    def is_tracked(self, path: Path) -> bool:
        """Return whether a file is in git's index."""
        return self._ask("ls-files", "--error-unmatch", "--", str(path)) is not None

    def is_ignored(self, path: Path) -> bool:
        """Return whether git leaves a file alone that it does not know."""
        # Not check-ignore, which takes no literal paths.
        listing = ("ls-files", "--others", "--ignored", "--exclude-standard")
        return bool(self._run(*listing, "--", str(path)))

    def upstream(self) -> str | None:
        """Return the branch of the remote that the checked-out branch follows, if it does."""
        branch = self._ask("symbolic-ref", "--quiet", "--short", "HEAD")
        merge = self._ask("config", f"branch.{branch}.merge") if branch else None
        return merge.removeprefix("refs/heads/") if merge else None

    def branch(self) -> str | None:
        """Return the remote's default branch, as the clone knows it, else the one checked out."""
        names = ("symbolic-ref", "--quiet", "--short")
        # As `git clone` left it; a fetch does not change it, and actions/checkout sets none.
        default = self._ask(*names, "refs/remotes/origin/HEAD") or ""
        return default.partition("/")[2] or self._ask(*names, "HEAD")

    def url(self) -> str | None:
        """Return the URL of the clone's remote."""
        remote = self.remote()
        return remote and self._ask("config", f"remote.{remote}.url")

    def remote(self) -> str | None:
        """Return the remote to ask: the checked-out branch's, else ``origin``, else any."""
        branch = self._ask("symbolic-ref", "--quiet", "--short", "HEAD")
        of_branch = self._ask("config", f"branch.{branch}.remote") if branch else None
        remotes = self._run("remote").split()
        # A branch that follows a local one has the remote ".", which is none.
        wanted = (name for name in (of_branch, "origin", *remotes) if name in remotes)
        return next(wanted, None)
