"""Read the property ``boot-test``: how an image is judged by its boot, or why it is not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FORM = re.compile(r"yes|no:\s*(?P<reason>\S.*)|console:\s*(?P<pattern>\S.*)")
MUST_BE = "yes, no: REASON, or console:TEXT"
NO_REASON = (
    "boot-test=no needs a reason, which people who choose an image see: write it after a colon, "
    "as in #boot-test=no: no agent in CirrOS"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootCheck:
    """How an image is judged by its boot: by its guest agent, if nothing else is said.

    Attributes:
        is_off: It is released without having been booted.
        reason: Why it is not booted; empty in records of older specs, which needed none.
        pattern: The plain text that its serial console must show, in place of the agent's answer.
            No regular expression: a pull request may write it, and some take for ever to match.
    """

    is_off: bool = False
    reason: str = ""
    pattern: str = ""

    @property
    def has_agent(self) -> bool:
        """Return whether the guest agent is asked."""
        return not (self.is_off or self.pattern)


def boot_check(properties: Mapping[str, str]) -> BootCheck:
    """Return what the properties of a spec, or of a manifest, say of the boot test."""
    value = properties.get("boot-test", "yes")
    if value == "no":
        return BootCheck(is_off=True)
    match = _FORM.fullmatch(value)
    reason, pattern = (match["reason"], match["pattern"]) if match else (None, None)
    return BootCheck(is_off=reason is not None, reason=reason or "", pattern=pattern or "")


def is_boot_check(value: str) -> bool:
    """Return whether a spec may say this of its boot test."""
    return _FORM.fullmatch(value) is not None
