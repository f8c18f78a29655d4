"""Asks git about the commits behind a plan, once."""

from collections.abc import Iterable, Mapping

from lago_images.errors import UsageError
from lago_images.planning.facts import History, Relation, Since
from lago_images.planning.git import Git

# Each costs two calls of git; images whose release is of yet another commit get a plainer reason.
_MOST_SINCE = 20


def gather(
    git: Git,
    *,
    commits: Iterable[str],
    published: str | None,
    paths: Iterable[str],
    scope: str | None = None,
) -> History:
    """What git knows of ``commits`` and of the last published one.

    Args:
        git: The repository; what a shallow clone lacks is fetched.
        commits: Of the releases that may be replaced.
        published: The commit published last.
        paths: Where specs, their inputs and the settings are.
        scope: The revision a plan is limited to what changed since: a branch or a commit, of
            which the newest common ancestor with the head counts.

    Raises:
        UsageError: There is no commit ``scope``, or it has nothing in common with the head.
    """
    head = git.head()
    if head is None and scope:
        raise UsageError(
            f"what changed since {scope!r} is not known: nothing is committed yet",
            hint="leave --base out, or commit the specs",
        )
    if head is None:
        return History()
    below = tuple(paths)
    start = git.fork(scope, head) if scope else None
    wanted = {*commits, *([published] if published else [])}
    relations = _relations(git, wanted, head)
    known = sorted(commit for commit in wanted if relations[commit] is not Relation.UNKNOWN)
    if published in known:
        known.remove(published)
        known.insert(0, published)
    return History(
        head=head,
        relations=relations,
        since={commit: _since(git, commit, head, below) for commit in known[:_MOST_SINCE]},
        scope=_since(git, start, head, below) if start else None,
    )


def _relations(git: Git, commits: Iterable[str], head: str) -> Mapping[str, Relation]:
    found = dict.fromkeys(commits, Relation.UNKNOWN)
    there = found.keys() - git.ensure_all(found)
    strangers = git.strangers(there, head)
    for commit in there:
        found[commit] = Relation.OLDER
    for commit in sorted(strangers):
        found[commit] = _relation(git, commit, head)
    if head in found:
        found[head] = Relation.SAME
    return found


def _relation(git: Git, commit: str, head: str) -> Relation:
    if git.is_ancestor(commit, head):
        return Relation.OLDER
    if git.is_ancestor(head, commit):
        return Relation.NEWER
    return Relation.APART


def _since(git: Git, commit: str, head: str, paths: tuple[str, ...]) -> Since:
    changes = git.changes(commit, head, paths)
    return Since.of(commit, changes, git.commits(commit, head, paths) if changes else {})
