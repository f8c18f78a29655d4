"""Complete the commands that hints name, so that they act where the call did that they follow."""

import re
import shlex

# Those of ours that act on specs or a repository; not in a path, a URL or another program's name.
_COMMAND = re.compile(
    r"(?<![\w./-])lago-images (?=(?P<name>lint|try|run|build|ci|repo|serve|doctor)\b)"
)
_HAS_FOLDER = re.compile(r"\s(?:-C|--directory)\b")
# Also by an argument: of serve the folder, of verify the URL.
_HAS_REPOSITORY = re.compile(r"\s--repo(?:sitory|-dir)\b|^serve [\w./~'$-]|^repo verify \S*[/:]")


def completed(text: str, folder: str | None, repository: str | None) -> str:
    """Return a text whose commands of ours have the options of the call that it follows.

    Args:
        text: What was wrong, or what to do about it.
        folder: What ``-C`` is to say; None where it is not needed.
        repository: What ``--repository`` is to say; None for that of the settings.
    """
    return _COMMAND.sub(lambda found: found[0] + _options(found, folder, repository), text)


def _options(found: re.Match[str], folder: str | None, repository: str | None) -> str:
    """Return the options of one command, which ends where the next one begins, or at a ``;``."""
    after = _COMMAND.split(found.string[found.end() :], maxsplit=1)[0].partition(";")[0]
    options = []
    if folder is not None and not _HAS_FOLDER.search(after):
        options += ["-C", folder]
    # lint reads none; build writes no bucket.
    name = found["name"]
    is_read = name != "lint" and not (name == "build" and (repository or "").startswith("s3:"))
    if repository is not None and is_read and not _HAS_REPOSITORY.search(after):
        options += ["--repository", repository]
    return "".join(f"{shlex.quote(word)} " for word in options)
