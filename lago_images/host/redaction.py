"""Keep from logs, which are published with the images, and from guests what they may not learn."""

import re
import shlex
from collections.abc import Mapping, Sequence

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
    """Remove the users and passwords of the URLs in a text."""
    return _USER.sub("…@", text)


def command_line(argv: Sequence[str]) -> str:
    """Write a command as one would type it, without the passwords that it is given."""
    arguments, option = [], ""
    for argument in argv:
        arguments.append(without_password(option, argument))
        option = argument
    return redacted(shlex.join(arguments))


def without_password(option: str, argument: str) -> str:
    """Return the argument of a ``--option`` of virt-sysprep without the password it may have."""
    return _PASSWORD.sub("…", argument, count=1) if option in _WITH_PASSWORD else argument


def environment_for(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a program's environment, without how this host logs in at its proxy for a guest."""
    kept = dict(environment)
    if program == _TELLS_GUESTS:
        for name in kept.keys() & set(_PROXIES):
            kept[name] = _PROXY_USER.sub(r"\1", kept[name])
    return kept
