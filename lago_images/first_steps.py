"""Say how a repository gets its first images: a bucket by other commands than a directory."""

from lago_images.addresses import is_bucket
from lago_images.settings import FILE

_BUILD = "lago-images build"
_REBUILD = "lago-images ci rebuild --changed, or push and let CI publish"


def first_steps(repository: str, *, base_url: str, is_examined: bool = False) -> list[str]:
    """Return what is to be done, in order, until something is published.

    Args:
        repository: Its address.
        base_url: What the settings say of where clients find it; empty where they say nothing.
        is_examined: Whether ``doctor`` was called just now.
    """
    # build writes no bucket: it would make ./image-repo, unsigned.
    if not is_bucket(repository):
        return [_BUILD]
    missing = [] if base_url else [f"set base-url in {FILE}"]
    # ci rebuild publishes what a commit has.
    examine = [] if is_examined else ["lago-images doctor"]
    return [*missing, "commit", *examine, _REBUILD]


def after_doctor(repository: str, *, base_url: str) -> str:
    """Return the first commands of who has just called ``doctor``, as one line."""
    if not is_bucket(repository):
        return f"lago-images lint && {_BUILD}"
    steps = first_steps(repository, base_url=base_url, is_examined=True)
    return "; ".join(["lago-images lint", *steps])


def makes_the_first(repository: str, *, base_url: str) -> str:
    """Return what to do where nothing was ever published, as one line."""
    if not is_bucket(repository):
        return f"{_BUILD} makes the first"
    *before, last = first_steps(repository, base_url=base_url)
    return f"for the first: {', '.join(before)}, then {last}"
