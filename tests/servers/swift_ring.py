"""``PATH PORT``: makes a Swift ring of one device; run with Swift on PYTHONPATH."""

import sys

from swift.common.ring import RingBuilder  # type: ignore[import-not-found]

path, port = sys.argv[1:]
builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
here = {"ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1.0}
builder.add_dev({"id": 0, "region": 1, "zone": 1, **here, "meta": ""})
builder.rebalance()
builder.get_ring().save(f"{path}.ring.gz")
