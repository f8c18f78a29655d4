"""Large bodies as blocks, which are never joined."""

# Bytes. Below the 128 KiB from which glibc's malloc begins by asking the kernel for cleared pages
# (M_MMAP_THRESHOLD in mallopt(3)).
BLOCK = 120 * 1024

Blocks = tuple[bytes | memoryview, ...]


class Body:
    """Blocks as the body of a request: what botocore asks of a file."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def read(self, _amount: int = -1) -> bytes | memoryview:
        """The next block, whole: urllib3 asks for 16 KiB, and sends what it gets."""
        if self._next == len(self._blocks):
            return b""
        self._next += 1
        return self._blocks[self._next - 1]

    def seek(self, position: int) -> None:
        """Back to the begin, to send it again."""
        if position:
            raise ValueError(position)
        self._next = 0
