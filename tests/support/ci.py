"""Values that the tests of reports are made of."""

from pathlib import Path

from lago_images.building.model import Result
from lago_images.planning.model import Action, Plan, PlannedImage, Reason, ReasonKind
from lago_images.repository.records.manifest import BaseRecord
from tests.support.builders import manifest

BASE, FINGERPRINT = "simple:disk.raw", "sha256:" + "f" * 64
HOSTILE = (
    "@octocat #12 GH-12 octo/repo#1 https://evil.example www.evil.example a@b.co "
    "[x](http://evil.example) ![i](http://evil.example/i.png) | <img src=x onerror=y> "
    "</code></td></table></details></pre><script>alert(1)</script> `c` **b** ~~s~~ $x$ <!-- \n"
    "| --- | --- |\r\n\n# head\n- [ ] task\n\x1b[31m\x00\u202e::set-env name=x::y "
    "--> \\| &#64;octocat"
)


def planned(name="debian-12", *, detail="image-specs/debian-12 changed", **changes) -> PlannedImage:
    plain = {
        "name": name,
        "arch": "x86_64",
        "action": Action.BUILD,
        "base": BASE,
        "fingerprint": FINGERPRINT,
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
    base = BaseRecord(ref=BASE, digest="sha256:" + "0" * 64)
    made = manifest(name, "b2", fingerprint=FINGERPRINT, base=base, size=100 << 20)
    plain = {"name": name, "arch": "x86_64", "manifest": made, "seconds": 75.4}
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
