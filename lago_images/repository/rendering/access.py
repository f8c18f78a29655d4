"""Tell how people log in to an image: what its spec documents, and is no secret already.

That is the password that ``root-password`` sets in plain text, or the property of that name: lago
reads it in ``.metadata``. Of other passwords, and of keys, only that they are there.
"""

from collections.abc import Mapping

from lago_images.repository.records.access import Access, Login
from lago_images.specs.bases import descent
from lago_images.specs.logins import key_users, passwords_along
from lago_images.specs.model import Spec


def access(spec: Spec, specs: Mapping[str, Spec]) -> Access:
    """Return the ways in to the image of a spec; ``specs`` has what it stands on, by name."""
    chain = list(descent(spec, specs))[::-1]
    keys = dict.fromkeys(user for each in chain for user in key_users(each.operations))
    usable = {user: each for user, each in passwords_along(chain).items() if each.is_usable}
    logins = (
        Login(
            user=user,
            password=usable[user].text if user in usable and usable[user].is_public else None,
            has_password=user in usable,
            has_key=user in keys,
        )
        for user in sorted({*usable, *keys}, key=lambda user: (user != "root", user))
    )
    return Access(
        logins=tuple(logins),
        cloud_init=any(each.properties.get("cloud-init") == "yes" for each in chain),
    )
