"""Know the line that images are published from: one branch, as its remote has it now.

A commit may be newer than the checkout and on no branch any more, because a force-push took it
back. Its images are then not newer ones to be left alone, but what was taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lago_images.errors import GitError, UsageError
from lago_images.planning.git import Git

_HEAD, _BRANCHES = "HEAD", "refs/heads/"


def published_branch(environ: Mapping[str, str], setting: str = "") -> str:
    """Return the branch that is published, by the setting, else by the CI; empty for neither.

    Of a pull request, the branch that it is for.
    https://docs.github.com/actions/reference/workflows-and-actions/variables
    """
    # GITHUB_REF of a pull request is refs/pull/N/merge, of a tag refs/tags/…
    ref = environ.get("GITHUB_REF", "")
    on_github = environ.get("GITHUB_BASE_REF") or (
        ref.removeprefix(_BRANCHES) if ref.startswith(_BRANCHES) else ""
    )
    # BRANCH_NAME of a pull request is PR-N, and of a tag the tag's:
    # https://www.jenkins.io/doc/book/pipeline/multibranch/
    in_jenkins = environ.get("CHANGE_TARGET") or (
        "" if environ.get("TAG_NAME") else environ.get("BRANCH_NAME", "")
    )
    return setting or on_github or in_jenkins


@dataclass(slots=True, kw_only=True)
class Line:
    """Know the commits that may be published: of the branch, and of the checkout.

    Attributes:
        git: The repository.
        branch: The branch that is published; empty when nobody said, and then the remote's
            default and what the checked-out branch follows. Without a remote: every local branch.
    """

    git: Git
    branch: str = ""
    _tips: tuple[str, ...] | None = field(default=None, init=False)
    _unanswered: GitError | None = field(default=None, init=False)
    _known: dict[str, bool] = field(default_factory=dict, init=False)
    _related: dict[tuple[str, str], bool] = field(default_factory=dict, init=False)

    def is_older(self, old: str, new: str) -> bool | None:
        """Return whether ``old`` is in the history of ``new``, and ``new`` was not taken back.

        None when the history between cannot be known.

        Raises:
            GitError: The remote does not say whether ``new`` is still on the branch.
            UsageError: There is no such branch.
        """
        related = self._is_ancestor(old, new)
        return self.has(new) if related else related

    def _is_ancestor(self, old: str, new: str) -> bool | None:
        """Ask git until it knows: what it knows of two commits stays so."""
        pair = (old, new)
        if pair not in self._related and (answer := self.git.is_ancestor(old, new)) is not None:
            self._related[pair] = answer
        return self._related.get(pair)

    def has(self, commit: str) -> bool:
        """Return whether a commit, which the clone has, is on the branch or in the checkout.

        Raises:
            GitError: The remote does not answer, and what it said last does not tell.
            UsageError: There is no such branch.
        """
        if commit not in self._known:
            self._known[commit] = self._has(commit)
        return self._known[commit]

    def _has(self, commit: str) -> bool:
        is_known = True
        head = self.git.head()
        # Once a run: each question to the remote is a connection.
        if self._tips is None:
            self._tips = self._asked()
        for tip in (*self._tips, *([head] if head else [])):
            answer = self.git.is_ancestor(commit, tip)
            if answer:
                return True
            is_known = is_known and answer is not None
        if self._unanswered is None and is_known:
            return False
        why = self._unanswered.message if self._unanswered else "its history cannot be fetched"
        raise GitError(
            f"whether commit {commit[:7]} is still on {self.branch or 'its branch'} "
            f"is not known: {why}",
            hint="let git reach the remote, or fetch all of its branches before: git fetch",
        )

    def _asked(self) -> tuple[str, ...]:
        git = self.git
        remote = git.remote()
        if remote is None:
            return self._found(git.tips(f"{_BRANCHES}{self.branch}"), "this clone")
        # What is published is the remote's: a local branch may have commits that nobody pushed.
        branches = [self.branch] if self.branch else [git.upstream()]
        refs = [f"{_BRANCHES}{branch}" for branch in branches if branch]
        try:
            tips = [git.remote_tip(ref) for ref in (*refs, *([] if self.branch else [_HEAD]))]
        except GitError as error:
            # A CI's clone may have no credentials left, but was fetched a moment ago.
            self._unanswered = error
            return git.tips(f"refs/remotes/{remote}/{self.branch}")
        return self._found(tuple(tip for tip in tips if tip), f"the remote {remote!r}")

    def _found(self, tips: tuple[str, ...], where: str) -> tuple[str, ...]:
        # Without its branch every commit but the checkout's would pass for taken back, and an
        # older checkout would build over newer images.
        if self.branch and not tips:
            raise UsageError(
                f"{where} has no branch {self.branch!r}, which is the one that is published",
                hint="mend the setting branch, or push the branch; unset, it is the CI's branch "
                "or the remote's default",
            )
        return tips
