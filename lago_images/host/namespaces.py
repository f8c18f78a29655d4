"""Root's rights over one's own files, for a user who is not root."""

# As root in a user namespace of one's own, with mounts of one's own: mmdebstrap's own unshare
# mode cannot enter a folder that only its user may read, which work directories are.
AS_ROOT = (
    "unshare",
    "--map-root-user",
    "--map-auto",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
)
