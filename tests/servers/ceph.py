"""Ceph's object gateway on one monitor and one OSD that keeps everything in memory."""

import platform
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers.model import Server
from tests.servers.processes import Processes, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon1}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {run}
admin_socket =
log_file = {run}/log/$name.log
mon_cluster_log_file = {run}/log/cluster.log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
erasure_code_dir = {lib}/ceph/erasure-code
plugin_dir = {lib}/ceph
osd_class_dir = {lib}/rados-classes
[mon]
mon_data = {run}/mon
[osd]
osd_data = {run}/osd
osd_objectstore = memstore
memstore_device_bytes = 12884901888
osd_class_load_list = *
osd_class_default_list = *
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_data = {run}
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 10
rgw_thread_pool_size = 64
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ceph:
    root: Path
    run: Path
    processes: Processes

    @property
    def lib(self) -> Path:
        return self.root / f"usr/lib/{platform.machine()}-linux-gnu"

    @property
    def conf(self) -> list[str]:
        return ["--conf", str(self.run / "ceph.conf")]

    def argv(self, program: str, *arguments: str) -> list[str]:
        """The program under the loader and libraries it was unpacked with."""
        libraries = f"{self.lib}:{self.lib}/ceph:{self.lib}/systemd"
        loader = str(next((self.root / "usr/lib64").glob("ld-linux-*.so.*")))
        return [loader, "--library-path", libraries, f"{self.root}/usr/bin/{program}", *arguments]

    def tool(self, program: str, *arguments: str) -> None:
        self.processes.run(self.argv(program, *arguments))

    def daemon(self, program: str, *arguments: str) -> None:
        self.processes.start(self.argv(program, *self.conf, *arguments))


def start(name: str, root: Path, run: Path, processes: Processes) -> Server:
    """Start a gateway from what ``fetch.ceph`` unpacked: 1 to 6 s."""
    ceph = _Ceph(root=root, run=run, processes=processes)
    port, mon, mon1 = free_port(), free_port(), free_port()
    for folder in ("mon", "osd", "log"):
        (run / folder).mkdir()
    fsid = str(uuid.uuid4())
    conf = _CONF.format(fsid=fsid, mon=mon, mon1=mon1, run=run, lib=ceph.lib, port=port)
    (run / "ceph.conf").write_text(conf)
    _make(ceph, fsid, f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon1}]")
    ceph.daemon("radosgw", "-n", "client.rgw", "-f")
    endpoint = f"http://127.0.0.1:{port}"
    processes.wait_for(endpoint)
    return Server(name=name, endpoint=endpoint, conditional=True)


def _make(ceph: _Ceph, fsid: str, mon: str) -> None:
    monmap, osdmap = str(ceph.run / "monmap"), str(ceph.run / "osdmap")
    ceph.tool("monmaptool", "--create", "--clobber", "--addv", "a", mon, "--fsid", fsid, monmap)
    pgs: Sequence[str] = ("--pg-bits", "1", "--pgp-bits", "1")
    ceph.tool("osdmaptool", "--createsimple", "1", osdmap, *pgs, "--clobber")
    maps = ("--monmap", monmap, "--osdmap", osdmap)
    ceph.tool("ceph-mon", *ceph.conf, "-i", "a", "--mkfs", *maps)
    ceph.daemon("ceph-mon", "-i", "a", "-f")
    osd = ("-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
    ceph.tool("ceph-osd", *ceph.conf, *osd)
    ceph.daemon("ceph-osd", "-i", "0", "-f")
    # The first owns the buckets; the others may do what a bucket's policy lets them.
    for name in ("test", "builder", "publisher"):
        user = (f"--uid={name}", f"--display-name={name}")
        keys = (f"--access-key={name}key", f"--secret-key={name}secret")
        ceph.tool("radosgw-admin", *ceph.conf, "user", "create", *user, *keys)
