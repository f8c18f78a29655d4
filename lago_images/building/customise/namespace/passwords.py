"""Make the fields of /etc/shadow for a spec's passwords, as virt-customize's password.ml does."""

import ctypes
import hashlib
import json

from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError
from lago_images.errors import BuildError
from lago_images.specs.model import Spec

# Debian 11 and newer know yescrypt; bootstrap: makes no older one.
_DEFAULT = "yescrypt"
_METHODS = {"md5": "$1$", "sha256": "$5$", "sha512": "$6$", "yescrypt": "$y$j9T$"}
_SALT = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./"
_SALT_LENGTH = 24


def fields(spec: Spec, base: str) -> dict[str, str]:
    """Return the second field of /etc/shadow of each user whose password a spec sets.

    Args:
        spec: Has the passwords.
        base: The digest of what it stands on.

    Raises:
        UnsupportedError: A selector or method is not for this engine.
        BuildError: A password is set twice.
    """
    # The last one holds for all passwords, wherever it stands.
    chosen = [each.argument for each in spec.operations if each.name == "password-crypto"]
    method = (chosen or [_DEFAULT])[-1]
    hashes: dict[str, str] = {}
    for operation in spec.operations:
        if operation.name not in {"password", "root-password"}:
            continue
        text = operation.argument
        user, _, selector = (text if operation.name == "password" else f"root:{text}").partition(
            ":"
        )
        if user in hashes:
            where = f"{spec.path}:{operation.line}"
            raise BuildError(f"{where}: {operation.name} sets a password for the second time")
        hashes[user] = _field(selector, method, salt(spec, base, user))
    return hashes


def salt(spec: Spec, base: str, user: str) -> str:
    """Return the salt of a user's password: another for each image, base and user.

    A salt is no secret. It is not of the password's, of which it would be a quick hash, and not of
    chance, so that two builds of the same are the same.
    """
    text = json.dumps([spec.name, spec.arch, base, user])
    digest = hashlib.sha512(text.encode()).digest()
    return "".join(_SALT[byte % len(_SALT)] for byte in digest[:_SALT_LENGTH])


def _field(selector: str, method: str, its_salt: str) -> str:
    locked, text = "", selector
    while text.partition(":")[0] in {"lock", "locked"}:
        locked, text = "!!", text.partition(":")[2] or "disabled"
    kind, _, password = text.partition(":")
    if text in {"disable", "disabled"}:
        return f"{locked}*"
    if kind != "password":
        raise UnsupportedError(f"the password selector {kind} is the appliance's")
    return locked + _encrypted(password, method, its_salt)


def _encrypted(password: str, method: str, its_salt: str) -> str:
    try:
        library = ctypes.CDLL("libcrypt.so.1")
    except OSError as error:
        raise UnsupportedError("this host has no libcrypt") from error
    library.crypt.restype = ctypes.c_char_p
    start = _METHODS[method].encode()
    result = library.crypt(password.encode(), start + its_salt.encode() + b"$")
    # What it does not know gives a text that starts with an asterisk.
    if not result or not result.startswith(start):
        raise UnsupportedError(f"this host's libcrypt does not know {method}")
    return bytes(result).decode()
