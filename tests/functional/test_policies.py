"""The builder's credentials write builds and nothing else, on a real store."""

from dataclasses import replace

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.policies import published_bucket

ELSEWHERE = (
    "releases/debian-12/x86_64/1.json",
    "index",
    "index.asc",
    "repo.metadata",
    "index.html",
    "key.asc",
    "state/published.json",
    "state/cache.json",
    "state/probe/x",
    "other",
)


@pytest.fixture(scope="module")
def bucket(ceph20):
    return published_bucket(ceph20)


def refused(call, **arguments) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.fixture
def builder(ceph20):
    return replace(ceph20, access_key="builderkey", secret_key="buildersecret").client()


@pytest.mark.parametrize("key", ELSEWHERE)
def test_the_builder_cannot_write_elsewhere(builder, bucket, key):
    assert refused(builder.put_object, Bucket=bucket, Key=key, Body=b"x")
    assert refused(builder.create_multipart_upload, Bucket=bucket, Key=key)


def test_the_builder_writes_builds_and_reads_all(ceph20, builder, bucket):
    ceph20.client().put_object(Bucket=bucket, Key="index", Body=b"[x]\n")
    key = "builds/debian-12/x86_64/b1/manifest.json"
    builder.put_object(Bucket=bucket, Key=key, Body=b"{}", IfNoneMatch="*")
    assert builder.get_object(Bucket=bucket, Key="index")["Body"].read() == b"[x]\n"
    listed = builder.list_objects_v2(Bucket=bucket)["Contents"]
    assert {"index", key} <= {entry["Key"] for entry in listed}


def test_the_builder_uploads_in_parts(builder, bucket):
    key = "builds/debian-12/x86_64/b2/debian-12.qcow2.xz"
    upload = builder.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    place = {"Bucket": bucket, "Key": key, "UploadId": upload}
    part = builder.upload_part(**place, PartNumber=1, Body=b"x")
    assert builder.list_parts(**place)["Parts"]
    builder.complete_multipart_upload(
        **place, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    begun = builder.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    builder.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun)


def test_the_builder_deletes_nothing_and_keeps_the_policy(builder, bucket):
    key = "builds/debian-12/x86_64/b3/manifest.json"
    builder.put_object(Bucket=bucket, Key=key, Body=b"{}")
    assert refused(builder.delete_object, Bucket=bucket, Key=key)
    assert refused(builder.delete_bucket_policy, Bucket=bucket)
    assert refused(builder.put_bucket_acl, Bucket=bucket, ACL="public-read-write")


def test_everybody_reads_and_nobody_writes(ceph20, bucket):
    ceph20.client().put_object(Bucket=bucket, Key="index", Body=b"[y]\n")
    anybody = boto3.client(
        "s3",
        endpoint_url=ceph20.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )
    assert anybody.get_object(Bucket=bucket, Key="index")["Body"].read() == b"[y]\n"
    for key in (*ELSEWHERE, "builds/x/x86_64/b/manifest.json"):
        assert refused(anybody.put_object, Bucket=bucket, Key=key, Body=b"x")
