"""Tell how people log in to an image: what its spec documents, and is no secret already.

That is the password that ``root-password`` sets in plain text, or the property of that name: lago
reads it in ``.metadata``. Of other passwords, and of keys, only that they are there.
"""

from collections.abc import Iterator, Mapping

from lago_images.repository.records.access import Access, Login
from lago_images.specs.logins import Password, key_users, passwords
from lago_images.specs.model import BaseKind, Spec

_ROOT = "root"
_PASSWORD = "root-password"  # noqa: S105 -- a property's name


def access(spec: Spec, specs: Mapping[str, Spec]) -> Access:
    """Return the ways in to the image of a spec; ``specs`` has what it stands on, by name."""
    set_: dict[str, Password] = {}
    keys: dict[str, None] = {}
    chain = list(_chain(spec, specs))[::-1]
    for each in chain:
        set_ |= passwords(each.operations)
        if _PASSWORD in each.properties:
            selector = f"password:{each.properties[_PASSWORD]}"
            set_[_ROOT] = Password(selector=selector, is_public=True)
        keys |= dict.fromkeys(key_users(each.operations))
    usable = {user: password for user, password in set_.items() if password.is_usable}
    logins = (
        Login(
            user=user,
            password=usable[user].text if user in usable and usable[user].is_public else None,
            has_password=user in usable,
            has_key=user in keys,
        )
        for user in sorted({*usable, *keys}, key=lambda user: (user != _ROOT, user))
    )
    return Access(
        logins=tuple(logins),
        cloud_init=any(each.properties.get("cloud-init") == "yes" for each in chain),
    )


def _chain(spec: Spec | None, specs: Mapping[str, Spec]) -> Iterator[Spec]:
    """Yield a spec, and what it stands on."""
    while spec:
        yield spec
        spec = specs.get(spec.base.name) if spec.base.kind is BaseKind.LAYER else None
