"""What is published on PyPI has all that the program reads, and the schemas that the README names.

As ``ci/wheel`` makes it: by the build backend that this project is installed with.
"""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from tests.support.schemas import FOLDER

PROJECT = Path(__file__).parents[2]


def test_the_wheel_has_the_package_s_files_and_the_schemas(tmp_path):
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*argv, "--directory", str(tmp_path)], cwd=PROJECT, check=True)
    [path] = tmp_path.iterdir()
    with ZipFile(path) as wheel:
        packed = {name: wheel.read(name) for name in wheel.namelist()}
    schemas = {f"lago_images/schemas/{each.name}": each for each in FOLDER.iterdir()}
    package = {
        str(each.relative_to(PROJECT)): each
        for each in (PROJECT / "lago_images").rglob("*")
        if each.is_file() and each.parent.name != "__pycache__"
    }
    assert schemas
    for name, source in {**schemas, **package}.items():
        assert packed.get(name) == source.read_bytes(), name
