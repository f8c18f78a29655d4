"""One transfer by the product's own store, as a process that imports nothing else.

Prints the seconds from the open store on; an upload is proven by its checksums as always.
"""

import os
import sys
import time
from pathlib import Path

from lago_images.storage.base import BLOCK
from lago_images.storage.s3.store import S3Store


def main(source: str, target: str) -> None:
    uploads = target.startswith("s3://")
    bucket, _, key = (target if uploads else source).removeprefix("s3://").partition("/")
    store = S3Store.open(bucket, environ=os.environ)
    begun = time.perf_counter()
    if uploads:
        with Path(source).open("rb", buffering=0) as file:
            store.upload(key, iter(lambda: file.read(BLOCK), b""))
    else:
        store.download(key, Path(target))
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main(*sys.argv[1:])
