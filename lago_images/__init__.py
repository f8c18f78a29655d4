"""From VM image specs in git to a published repository for virt-builder and lago."""
