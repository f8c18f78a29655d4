"""Values that the tests of reports are made of."""

from pathlib import Path

from lago_images.building.model import Result
from lago_images.planning.model import Action, Plan, PlannedImage, Reason, ReasonKind
from lago_images.repository.records.manifest import BaseRecord, BootTest, Disk, Manifest

HOSTILE = (
    "@octocat #12 GH-12 octo/repo#1 https://evil.example www.evil.example a@b.co "
    "[x](http://evil.example) ![i](http://evil.example/i.png) | <img src=x onerror=y> "
    "</code></td></table></details></pre><script>alert(1)</script> `c` **b** ~~s~~ $x$ <!-- \n"
    "| --- | --- |\r\n\n# head\n- [ ] task\n\x1b[31m\x00\u202e::set-env name=x::y "
    "--> \\| &#64;octocat"
)


def manifest(name="debian-12", build_id="b1", *, size=100 << 20, **changes) -> Manifest:
    plain = {
        "name": name,
        "arch": "x86_64",
        "build_id": build_id,
        "fingerprint": "sha256:" + "f" * 64,
        "base": BaseRecord(ref="simple:disk.raw", digest="sha256:" + "0" * 64),
        "disk": Disk(
            format="qcow2",
            virtual_size=6 << 30,
            size=400 << 20,
            compressed_size=size,
            sha1="a" * 40,
            sha256="b" * 64,
            sha512="c" * 128,
        ),
        "commit": "1" * 40,
        "dirty": False,
        "created": 1_700_000_000,
        "seconds": 61,
        "boot": BootTest(seconds=31.0, accel="tcg"),
        "packages": 3,
    }
    return Manifest(**{**plain, **changes})


def planned(name="debian-12", *, detail="image-specs/debian-12 changed", **changes) -> PlannedImage:
    plain = {
        "name": name,
        "arch": "x86_64",
        "action": Action.BUILD,
        "base": "simple:disk.raw",
        "fingerprint": "sha256:" + "f" * 64,
        "reasons": (Reason(kind=ReasonKind.SPEC, detail=detail),),
        "revision": 1,
    }
    return PlannedImage(**{**plain, **changes})


def plan(*images: PlannedImage, **changes) -> Plan:
    plain = {
        "head": "2" * 40,
        "dirty": False,
        "published": "1" * 40,
        "made": 1_700_000_000,
        "images": images,
        "chains": tuple((image.name,) for image in images),
    }
    return Plan(**{**plain, **changes})


def built(name="debian-12", **changes) -> Result:
    plain = {"name": name, "arch": "x86_64", "manifest": manifest(name, "b2"), "seconds": 75.4}
    return Result(**{**plain, **changes})


def failed(name="debian-12", **changes) -> Result:
    plain = {
        "step": "customising",
        "error": "virt-sysprep failed with exit code 1",
        "tail": ("one", "two"),
        "log": Path(f"{name}.log"),
        "seconds": 3.0,
    }
    return built(name, manifest=None, **{**plain, **changes})
