"""Compare two disks: file by file, and what is around their files."""
