"""Clouds to start a guest in: a network with a metadata service, and a machine of the cloud's."""

import json
import secrets
import shlex
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.servers import metadata

# A guest's network card, as tests start it.
MAC = "52:54:00:12:34:56"
# What QEMU's network has of the guest's, and the address that its DHCP gives.
NET = "172.16.0"
LEASED = f"{NET}.100"
GATEWAY = f"{NET}.2"
NAME_SERVER = f"{NET}.3"
# QEMU forwards addresses of its own network alone: this one has the service's and the guest's.
_WIDE = "160.0.0.0/4"
_SERVICE = "169.254.169.254"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A cloud that one guest is in.

    Attributes:
        options: Of QEMU, for a machine of the cloud's.
        folder: What the metadata service answers from.
    """

    options: tuple[str, ...]
    folder: Path

    def requests(self) -> list[str]:
        """What the guest asked the service for: status, method and path of each."""
        return (self.folder / "requests").read_text().splitlines()


def openstack(folder: Path, texts: Mapping[str, str], keys: Mapping[str, str]) -> Cloud:
    """An OpenStack: texts are the files of ``openstack/latest``, keys are of the instance.

    Nova answers to the paths of EC2's first version, too.
    """
    meta = json.loads(texts["meta_data.json"])
    files = {**texts, "meta_data.json": json.dumps({**meta, "public_keys": keys})}
    tree = {
        "openstack": {"": "2018-08-27\nlatest", "2018-08-27": files, "latest": files},
        "latest": {"meta-data": _instance("i-00000001", meta["hostname"], keys)},
    }
    machine = f"manufacturer=OpenStack Foundation,product=OpenStack Nova,uuid={meta['uuid']}"
    return _cloud(folder, tree, machine)


def ec2(folder: Path, hostname: str, user_data: str, keys: Mapping[str, str]) -> Cloud:
    """An EC2 that answers to its second version alone, which asks for a token first."""
    instance = "i-0123456789abcdef0"
    card = {
        "device-number": "0",
        "local-ipv4s": LEASED,
        "mac": MAC,
        "subnet-ipv4-cidr-block": f"{NET}.0/16",
        "vpc-id": "vpc-1",
    }
    version = {
        "meta-data": {
            **_instance(instance, hostname, keys),
            "mac": MAC,
            "network": {"interfaces": {"macs": {MAC: card}}},
        },
        "user-data": user_data,
        "dynamic": {
            "instance-identity": {
                "document": json.dumps({"instanceId": instance, "region": "eu-central-1"})
            }
        },
    }
    # Each of the dates that cloud-init knows, and the one that it begins with.
    tree = dict.fromkeys(("2009-04-04", "2018-09-24", "2021-03-23", "latest"), version)
    (folder / "token").write_text(secrets.token_urlsafe())
    number = f"ec2{str(uuid.uuid4())[3:]}"
    cloud = _cloud(folder, tree, f"manufacturer=Amazon EC2,serial={number},uuid={number}")
    # The DHCP of a network that leads nowhere tells of no gateway and no name server.
    return replace(cloud, options=(*cloud.options, *_set("restrict", "off")))


def _instance(number: str, hostname: str, keys: Mapping[str, str]) -> dict[str, Any]:
    """What both clouds tell at ``meta-data``."""
    listed = {"": "\n".join(f"{place}={name}" for place, name in enumerate(keys))}
    texts = {str(place): {"openssh-key": key} for place, key in enumerate(keys.values())}
    return {
        "hostname": hostname,
        "instance-id": number,
        "instance-type": "m1.small",
        "local-hostname": hostname,
        "local-ipv4": LEASED,
        "placement": {"availability-zone": "eu-central-1a"},
        "public-keys": {**listed, **texts},
    }


def _cloud(folder: Path, tree: Mapping[str, Any], machine: str) -> Cloud:
    (folder / "tree.json").write_text(json.dumps(tree))
    command = shlex.join([sys.executable, metadata.__file__, str(folder)])
    network = {
        "net": _WIDE,
        "host": GATEWAY,
        "dns": NAME_SERVER,
        "dhcpstart": LEASED,
        "guestfwd": f"tcp:{_SERVICE}:80-cmd:{command}",
    }
    options = [word for name, value in network.items() for word in _set(name, value)]
    return Cloud(options=(*options, "-smbios", f"type=1,{machine}"), folder=folder)


def _set(name: str, value: str) -> tuple[str, str]:
    """QEMU's option for a setting of the network that a guest is started with."""
    return "-set", f"netdev.net.{name}={value}"
