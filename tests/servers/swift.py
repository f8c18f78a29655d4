"""OpenStack Swift's S3 interface: creation is not atomic, and If-Match is answered 501."""

import os
import pwd
import sys
from pathlib import Path

from tests.servers.model import Server
from tests.servers.processes import Processes, free_port

_RING = Path(__file__).parent / "swift_ring.py"
_BACKEND = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {run}
devices = {run}/devices
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
log_address = {run}/no-syslog
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {run}
log_address = {run}/no-syslog
[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
min_segment_size = 1048576
[filter:tempauth]
use = egg:swift#tempauth
user_test_key = testsecret .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
"""


def start(packages: Path, run: Path, processes: Processes) -> Server:
    """Start a proxy and one server each for accounts, containers and objects."""
    (run / "devices/d1").mkdir(parents=True)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HOME": str(run)}
    user = pwd.getpwuid(os.getuid()).pw_name
    (run / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = test\n")
    # -P: this folder has modules named like the packages.
    python = [sys.executable, "-P"]
    for kind in ("account", "container", "object"):
        port = free_port()
        processes.run([*python, str(_RING), str(run / kind), str(port)], env)
        conf = run / f"{kind}.conf"
        conf.write_text(_BACKEND.format(port=port, run=run, kind=kind, user=user))
        processes.start([*python, str(packages / f"bin/swift-{kind}-server"), str(conf)], env)
    port = free_port()
    conf = run / "proxy.conf"
    conf.write_text(_PROXY.format(port=port, run=run, user=user))
    processes.start([*python, str(packages / "bin/swift-proxy-server"), str(conf)], env)
    endpoint = f"http://127.0.0.1:{port}"
    processes.wait_for(endpoint)
    return Server(name="swift", endpoint=endpoint, conditional=False, access_key="test:key")
