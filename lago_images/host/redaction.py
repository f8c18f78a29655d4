"""Keep from logs, which are published with the images, and from guests what they may not learn."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

_USER = re.compile(r"(?<=//)[^/\s]+@")
# virt-sysprep's options whose argument is USER:password:PASSWORD.
_WITH_PASSWORD = frozenset(("--password", "--sm-credentials"))
_PASSWORD = re.compile(r"(?<=:password:).*", re.DOTALL)
# It hands these on to a spec's commands (guestfs-tools, mlcustomize/customize_run.ml).
_TELLS_GUESTS = "virt-sysprep"
_PROXIES = ("http_proxy", "https_proxy")
# A proxy's scheme may be left out.
_PROXY_USER = re.compile(r"^([a-z0-9+.-]+://)?[^/]*@", re.IGNORECASE)


def redacted(text: str) -> str:
    """A text without the users and passwords of the URLs in it."""
    return _USER.sub("…@", text)


def command_line(argv: Sequence[str]) -> str:
    """A command as one would type it, without the passwords that it is given."""
    return redacted(shlex.join(_arguments(argv)))


def environment_for(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """A program's environment; a guest is not told how this host logs in at its proxy."""
    kept = dict(environment)
    if program == _TELLS_GUESTS:
        for name in kept.keys() & set(_PROXIES):
            kept[name] = _PROXY_USER.sub(r"\1", kept[name])
    return kept


def _arguments(argv: Sequence[str]) -> Iterator[str]:
    option = ""
    for argument in argv:
        yield _PASSWORD.sub("…", argument, count=1) if option in _WITH_PASSWORD else argument
        option = argument
