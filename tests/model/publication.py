"""Model the publication: every interleaving of its requests, crashes and attacks included.

Each actor is a list of steps, and each step is a request to the store: a test runs the code and
compares (``tests/unit/repository/publishing/test_model.py``). ``explore`` walks through all states
that any order of steps can reach, in which an actor may also die before each of its steps, and
returns the invariants that some state breaks. A guard left out of ``guards`` is not applied: then
some invariant must break, or the guard is not needed.

The commits of two publishers and who gives way are not modelled here but run for real, in every
order of their steps, by ``tests/unit/jobs/test_publish.py``.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

GOOD, EVIL = "good", "evil"
GUARDS = frozenset({"prove", "create once", "if-match", "grace"})


class World(NamedTuple):
    """The objects of one image in the store.

    Attributes:
        staged: The bytes of the staged disk, which the attacker can overwrite.
        public: By folder, the bytes of its disk.
        releases: By revision, the folder that it names; a number withdraws that revision.
        retired: The folders with a retirement record.
        rendered: The version (its ETag) and the folders that the rendered files name.
        misled: Whether a reader was sent to what is missing.
    """

    staged: str
    public: frozenset[tuple[str, str]]
    releases: tuple[str | int, ...]
    retired: frozenset[str]
    rendered: tuple[int, frozenset[str]]
    misled: bool = False

    def offered(self) -> frozenset[str]:
        withdrawn = {one for one in self.releases if isinstance(one, int)}
        return frozenset(
            folder
            for revision, folder in enumerate(self.releases, 1)
            if isinstance(folder, str) and revision not in withdrawn and folder not in self.retired
        )


class Actor(NamedTuple):
    """One run of a job: its steps, the next one, and what it remembers between them."""

    steps: tuple[str, ...]
    folder: str = ""
    at: int = 0
    seen: int = 0
    etag: int = 0
    named: frozenset[str] = frozenset()

    @property
    def step(self) -> str | None:
        return self.steps[self.at] if self.at < len(self.steps) else None

    def next(self, **remembered: Any) -> "Actor":
        return self._replace(at=self.at + 1, **remembered)

    def back_to_list(self) -> "Actor":
        """Decide again: from the nearest step before this one that lists."""
        earlier = [at for at in range(self.at) if self.steps[at].startswith("list")]
        return self._replace(at=earlier[-1])

    def stopped(self) -> "Actor":
        return self._replace(at=len(self.steps))


RENDER = ("get index", "list releases to render", "put index")
PUBLISH = ("list releases", "copy", "prove", "put release", *RENDER)
RETIRE = ("list", "list again", "put retirement", *RENDER)
DELETE = ("list retired", *RENDER, "get index again", "delete")
# Two runs of ``repo gc``, with the grace period between.
COLLECT = (*RETIRE, *DELETE)
YANK = ("list releases", "put withdrawal", *RENDER)
ROLL_BACK = ("list", "list again to release", "put release", *RENDER)
ATTACK = ("overwrite staging",)
READ = ("get index to read", "download")
# Orders that are forbidden: a release before its copy, and a listing before the ETags.
RELEASE_FIRST = ("list releases", "put release", "copy", "prove", *RENDER)
LIST_FIRST = (*PUBLISH[:4], "list releases to render", "get index", "put index")
# The request of each step, as ``Store``'s method and the folder; the proof is part of ``copy``.
REQUESTS = {
    "list": ("list", "images"),
    "list again": ("list", "releases"),
    "list again to release": ("list", "releases"),
    "list retired": ("list", "images"),
    "list releases": ("list", "releases"),
    "list releases to render": ("list", "releases"),
    "copy": ("write", "images"),
    "prove": None,
    "put release": ("write", "releases"),
    "put withdrawal": ("write", "releases"),
    "put retirement": ("write", "releases"),
    "get index": ("get", "rendered"),
    "get index again": ("get", "rendered"),
    "put index": ("write", "rendered"),
    "delete": ("delete", "images"),
}


def step(  # noqa: PLR0911, PLR0912 -- a table: a case for each step
    world: World, actor: Actor, guards: frozenset[str], *, alone: bool
) -> tuple[World, Actor]:
    """Take an actor's next step; ``alone`` when no other actor is at work (the grace period)."""
    folder, number = actor.folder, len(world.releases)
    match actor.step:
        case "overwrite staging":
            return world._replace(staged=EVIL), actor.next()
        case "copy":
            # Made once: a publisher that lost its revision decides again with the same copy.
            if any(name == folder for name, _ in world.public):
                return world, actor.next()
            return world._replace(public=world.public | {(folder, world.staged)}), actor.next()
        case "prove":
            if "prove" in guards and (folder, GOOD) not in world.public:
                return world._replace(public=world.public - {(folder, EVIL)}), actor.stopped()
            return world, actor.next()
        case "list releases":
            if folder in world.retired:
                return world, actor.stopped()
            return world, actor.next(seen=number)
        case "list again to release":
            is_overtaken = number != actor.seen or folder in world.retired
            return world, actor.stopped() if is_overtaken else actor.next()
        case "put release":
            return _create(world, actor, folder, guards)
        case "put withdrawal":
            newest = max((n for n, one in enumerate(world.releases, 1) if isinstance(one, str)))
            return _create(world, actor, newest, guards)
        case "get index":
            return world, actor.next(etag=world.rendered[0])
        case "get index to read":
            return world, actor.next(named=world.rendered[1])
        case "download":
            missing = actor.named - {name for name, _ in world.public}
            return world._replace(misled=bool(missing)), actor.next()
        case "list releases to render":
            return world, actor.next(named=world.offered(), seen=number)
        case "put index":
            if "if-match" in guards and world.rendered[0] != actor.etag:
                return world, actor._replace(at=actor.at - 2)
            return world._replace(rendered=(world.rendered[0] + 1, actor.named)), actor.next()
        case "list":
            return world, actor.next(seen=number)
        case "list again":
            return world, actor.next() if number == actor.seen else actor.stopped()
        case "put retirement":
            return world._replace(retired=world.retired | {folder}), actor.next()
        case "get index again":
            return world, actor.next() if folder not in world.rendered[1] else actor.stopped()
        case "list retired":
            is_waiting = "grace" in guards and not alone
            return world, actor if is_waiting else actor.next()
        case "delete":
            kept = frozenset(one for one in world.public if one[0] != folder)
            return world._replace(public=kept), actor.next()
        case _:
            raise AssertionError(actor)


def _create(
    world: World, actor: Actor, entry: str | int, guards: frozenset[str]
) -> tuple[World, Actor]:
    """Take the revision after those that were listed; another's overwrites it without the guard."""
    if len(world.releases) > actor.seen:
        if "create once" in guards:
            return world, actor.back_to_list()
        changed = (*world.releases[: actor.seen], entry, *world.releases[actor.seen + 1 :])
        return world._replace(releases=changed), actor.next()
    return world._replace(releases=(*world.releases, entry)), actor.next()


def broken(world: World, before: World | None) -> Iterator[str]:
    """Name the invariants that a state, or the step to it, breaks."""
    for folder in world.rendered[1]:
        if (folder, GOOD) not in world.public:
            yield "the rendered files name what is missing or not what was judged"
    if world.misled:
        yield "a reader of an older index was sent to what is missing"
    for entry in world.releases:
        if isinstance(entry, str) and (entry, EVIL) in world.public:
            yield "a release names an attacker's bytes"
    if before and before.releases != world.releases[: len(before.releases)]:
        yield "a revision has two contents"


def explore(world: World, actors: tuple[Actor, ...], guards: frozenset[str] = GUARDS) -> set[str]:
    """Walk through every order of steps and deaths; return the invariants that are broken."""
    failures: set[str] = set()
    open_ = [(world, actors, False)]
    known = set(open_)
    while open_:
        now, running, has_death = open_.pop()
        if not running:
            # Whoever renders next, after whatever was broken off, offers what the releases say.
            failures.update(broken(now._replace(rendered=(0, now.offered())), None))
            if not has_death and now.rendered[1] != now.offered():
                failures.add("an update is lost")
        for position, actor in enumerate(running):
            others = running[:position] + running[position + 1 :]
            after, moved = step(now, actor, guards, alone=not others)
            failures.update(broken(after, now))
            still_running = tuple(sorted((*others, moved))) if moved.step else others
            for state in ((after, still_running, has_death), (now, others, True)):
                if state not in known:
                    known.add(state)
                    open_.append(state)
    return failures
