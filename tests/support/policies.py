"""The policies of docs/policies, applied to a bucket on a real server."""

from pathlib import Path

from tests.servers.model import Server

POLICIES = Path(__file__).parents[2] / "docs" / "policies"


def published_bucket(server: Server) -> str:
    """A new bucket that everybody reads, and whose ``builds/`` the user ``builder`` writes."""
    bucket = server.new_bucket()
    text = (POLICIES / "bucket-ceph.json").read_text()
    text = text.replace("BUCKET", bucket).replace("PREFIX", "").replace("BUILDER", "builder")
    server.client().put_bucket_policy(Bucket=bucket, Policy=text)
    return bucket
