"""Git, read only as far as planning needs it.

A clone may be shallow: what is missing is fetched when it is asked for, step by step. All paths
are relative to the folder a ``Git`` was made for, with ``/``, also where git's own root is above.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from lago_images.errors import UsageError
from lago_images.planning import gitdata
from lago_images.planning.gitdata import Change, Commit, Snapshot
from lago_images.planning.gitprogram import Program

MOST_COMMITS = 2000
_FEW = 3
_MOST_FETCHED = 20
_STEPS = (50, 500, 5000)


class Git:
    """The git repository that a folder is in."""

    def __init__(self, folder: Path) -> None:
        """Raises ``GitError`` if git cannot use the folder; ``find`` is for when it may not."""
        self.folder = folder
        self._program = Program(folder)
        self._run, self._ask = self._program.run, self._program.ask
        self.prefix = self._run("rev-parse", "--show-prefix").strip()

    @classmethod
    def find(cls, folder: Path) -> "Git | None":
        """The repository that ``folder`` is in; None outside git.

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

    def head(self) -> str | None:
        """The commit that is checked out; None before the first one."""
        return self._ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def resolve(self, rev: str) -> str:
        """The commit that a person's ``rev`` means: a branch, a tag, an id.

        An id, or a remote's branch as ``REMOTE/BRANCH``, is fetched if the clone lacks it.
        Raises ``UsageError`` when there is none.
        """
        found = None
        if rev and not rev.startswith("-"):
            found = self._ask("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
            if found is None and (self.ensure(rev) or self._fetch_branch(rev)):
                found = self._ask("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
        if found is None:
            remote = self._remote() or "REMOTE"
            raise UsageError(
                f"there is no commit {rev!r} in this clone, and its remote does not give it",
                hint=f"fetch it first: git fetch {remote} {rev.removeprefix(f'{remote}/')}",
            )
        return found

    def snapshot(self, paths: Iterable[str]) -> Snapshot:
        """What git knows of the files below ``paths``."""
        wanted = sorted(set(paths))
        listing = self._run("ls-files", "-s", "-v", "-z", "--", *wanted)
        status = self._run(
            *("status", "--porcelain=v2", "-z", "--no-renames", "--untracked-files=no"),
            *("--no-show-stash", "--ignore-submodules=none", "--", *wanted),
        )
        entries, flagged = gitdata.parse_index(listing)
        changed, dirty = gitdata.parse_status(status, self.prefix)
        algorithm = self._ask("rev-parse", "--show-object-format") or "sha1"
        # Git does not look at a file that is marked as assumed unchanged, so somebody else must.
        flagged = {path for path in flagged if (self.folder / path).exists()}
        return Snapshot(
            entries=entries,
            changed=frozenset(changed | flagged),
            dirty=frozenset(dirty | flagged),
            algorithm=algorithm,
        )

    def changes(self, old: str, new: str, paths: Iterable[str] = ()) -> tuple[Change, ...]:
        """The files below ``paths`` that differ between two commits, with renames found."""
        listing = self._run(
            *("diff", "--name-status", "-z", "--find-renames", "--relative", "--no-ext-diff"),
            *("--ignore-submodules=none", old, new, "--", *sorted(set(paths))),
        )
        return tuple(gitdata.parse_changes(listing))

    def commits(
        self, old: str, new: str, paths: Iterable[str] = ()
    ) -> Mapping[str, tuple[Commit, ...]]:
        """By path, the commits of ``new`` that ``old`` does not have, newest first.

        Looks at the newest ``MOST_COMMITS`` that touch ``paths``.
        """
        listing = self._run(
            *("log", "-z", "--name-only", "--no-renames", "--relative", "--no-show-signature"),
            *(f"--format={gitdata.LOG_FORMAT}", f"--max-count={MOST_COMMITS}"),
            *(f"{old}..{new}", "--", *sorted(set(paths))),
        )
        return gitdata.parse_log(listing, cut=self.shallow)

    @property
    def shallow(self) -> bool:
        """Whether history is cut off somewhere."""
        return self._run("rev-parse", "--is-shallow-repository").strip() == "true"

    def has(self, commit: str) -> bool:
        """Whether the clone has the commit, without asking a remote."""
        return not self.missing([commit])

    def missing(self, commits: Iterable[str]) -> frozenset[str]:
        """Those of ``commits`` that the clone does not have, without asking a remote."""
        wanted = sorted(set(commits))
        known = [commit for commit in wanted if gitdata.COMMIT.fullmatch(commit)]
        lines = self._run("cat-file", "--batch-check", stdin=known).splitlines()
        there = {
            commit for commit, line in zip(known, lines, strict=True) if line.split()[1] == "commit"
        }
        return frozenset(wanted) - there

    def ensure(self, commit: str) -> bool:
        """Have the commit in the clone, fetching it if need be; False when it cannot be had."""
        if not gitdata.COMMIT.fullmatch(commit):
            return False
        if self.has(commit):
            return True
        depth = ("--depth=1",) if self.shallow else ()
        if self._fetch(*depth, wanted=[commit]) and self.has(commit):
            return True
        return any(self.has(commit) for _ in self._everything())

    def ensure_all(self, commits: Iterable[str]) -> frozenset[str]:
        """Have many commits in the clone; returns those that cannot be had."""
        lost = self.missing(commits)
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
        """Whether ``old`` is ``new`` or in its history.

        None when that cannot be known: a commit is gone, or the history between is cut off in
        this clone and cannot be fetched.
        """
        if not (self.ensure(old) and self.ensure(new)):
            return None
        if self._is_ancestor(old, new):
            return True
        if any(self._is_ancestor(old, new) for _ in self._deepened([old, new])):
            return True
        return None if self.shallow else False

    def strangers(self, commits: Iterable[str], new: str) -> frozenset[str]:
        """Those of ``commits`` not seen in the history of ``new``; all must be in the clone.

        One call for many; in a shallow clone a stranger may still turn out an ancestor.
        """
        wanted = frozenset(commits)
        if not wanted:
            return wanted
        listing = self._run("rev-list", "--stdin", stdin=[*sorted(wanted), f"^{new}"])
        return wanted & frozenset(listing.split())

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest commit both come from; None when there is none or it cannot be had."""
        if not (self.ensure(one) and self.ensure(other)):
            return None
        found = self._ask("merge-base", one, other)
        steps = self._deepened([one, other])
        while found is None and next(steps, None) is not None:
            found = self._ask("merge-base", one, other)
        return found

    def fork(self, rev: str, head: str) -> str:
        """The commit at which ``head`` left the history of a person's ``rev``.

        Raises ``UsageError`` when there is no such revision, or nothing in common.
        """
        found = self.merge_base(self.resolve(rev), head)
        if found is None:
            raise UsageError(f"{rev} and the commit checked out have no history in common")
        return found

    def _is_ancestor(self, old: str, new: str) -> bool:
        return self._ask("merge-base", "--is-ancestor", old, new) is not None

    def _deepened(self, wanted: Sequence[str]) -> Iterator[int]:
        """Make the history of the wanted commits longer, as often as the caller goes on."""
        for step in (*_STEPS, 0):
            if not self.shallow:
                return
            how = f"--deepen={step}" if step else "--unshallow"
            if not self._fetch(how, wanted=wanted) and not self._fetch(how):
                return
            yield step

    def _everything(self) -> Iterator[int]:
        """Fetch the remote's branches, then their history, for a remote that gives no single id."""
        remote = self._remote()
        if remote and self._fetch(wanted=[f"+refs/heads/*:refs/remotes/{remote}/*"]):
            yield 0
            yield from self._deepened([])

    def _fetch_branch(self, rev: str) -> bool:
        """Fetch ``REMOTE/BRANCH``, which a CI's clone of one pull request may not have."""
        remote, _, branch = rev.partition("/")
        if not branch or remote not in self._run("remote").split():
            return False
        depth = ("--depth=1",) if self.shallow else ()
        wanted = f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"
        return self._fetch(*depth, wanted=[wanted], remote=remote)

    def _fetch(self, *options: str, wanted: Sequence[str] = (), remote: str | None = None) -> bool:
        remote = remote or self._remote()
        if remote is None:
            return False
        basic = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-gc")
        return self._ask("fetch", *basic, *options, remote, *wanted) is not None

    def branch(self) -> str | None:
        """The remote's default branch, as the clone knows it, else the one checked out."""
        names = ("symbolic-ref", "--quiet", "--short")
        default = self._ask(*names, "refs/remotes/origin/HEAD") or ""
        return default.partition("/")[2] or self._ask(*names, "HEAD")

    def url(self) -> str | None:
        """Where the clone is from: its remote's URL."""
        remote = self._remote()
        return remote and self._ask("config", f"remote.{remote}.url")

    def _remote(self) -> str | None:
        branch = self._ask("symbolic-ref", "--quiet", "--short", "HEAD")
        of_branch = self._ask("config", f"branch.{branch}.remote") if branch else None
        remotes = self._run("remote").split()
        wanted = (name for name in (of_branch, "origin", *remotes) if name in remotes)
        return next(wanted, None)
