"""A QEMU that fails at once, for tests of something else than guests."""

import os
from pathlib import Path


def failing_qemu(folder: Path) -> dict[str, str]:
    """Return a PATH whose QEMU writes each start as a line into ``folder/starts``, and fails.

    Where KVM hangs, the real one takes three seconds, and a processor, to find that out.
    """
    folder.mkdir()
    for machine in ("x86_64", "aarch64"):
        program = folder / f"qemu-system-{machine}"
        program.write_text(f"#!/bin/sh\necho start >> '{folder}/starts'\nexit 1\n")
        program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
