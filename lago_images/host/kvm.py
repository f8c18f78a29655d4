"""Whether KVM really works here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """What guests run on: ``kvm`` or ``tcg``; ``why`` says why KVM is not used."""

    name: str
    why: str = ""

    @property
    def kvm(self) -> bool:
        return self.name == "kvm"
