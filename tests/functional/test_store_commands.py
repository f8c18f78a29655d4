"""The commands of ``docs/stores.md`` for AWS, on a mock of its API: AWS itself is not here."""

import re
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support.aws_cli import aws
from tests.support.policies import POLICIES, text_of

PAGE = Path(__file__).resolve().parents[2] / "docs/stores.md"
RAW = "https://raw.githubusercontent.com/lago-project/lago-images/main/docs/policies"


def commands(text: str) -> list[str]:
    """The shell commands of a part of the page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", "").splitlines()


def test_the_commands_for_aws_make_a_bucket_with_the_policy_for_everybody(moto, tmp_path):
    bucket = f"my-images-{uuid.uuid4().hex[:12]}"
    start, of_aws, *_ = PAGE.read_text().split("\n## ")
    [fill] = [line for line in commands(start) if "sed" in line]
    fill = fill.replace("my-images", bucket).replace(RAW, POLICIES.as_uri())
    subprocess.run(["bash", "-ec", fill], cwd=tmp_path, check=True, timeout=60)
    for line in commands(of_aws):
        aws(moto, tmp_path, line.replace("my-images", bucket))
    client = moto.client()
    assert client.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-central-1"
    kept = client.get_bucket_policy(Bucket=bucket)["Policy"]
    assert kept.strip() == text_of("public-aws.json", bucket, "prefix/").strip()
    block = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    # Else AWS refuses that policy, or does not let everybody in by it.
    assert not block["BlockPublicPolicy"]
    assert not block["RestrictPublicBuckets"]


@pytest.mark.parametrize(
    "command",
    [
        "make-bucket --bucket x",
        "create-bucket --name x",
        "put-public-access-block --bucket x --public-access-block-configuration BlockAll=true",
    ],
)
def test_a_command_that_there_is_not_is_refused(moto, tmp_path, command):
    with pytest.raises(KeyError):
        aws(moto, tmp_path, f"aws s3api {command}")
