"""The real clients of a repository, driven by tests: virt-builder, lago, and a machine's boot."""
