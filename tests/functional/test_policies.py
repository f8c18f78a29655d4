"""What each key may do, on a real store; and AWS's own rules on a stand-in.

Every test is for a prefix in a bucket that another application uses, too.
"""

from dataclasses import replace

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from lago_images.console import Console
from lago_images.errors import NotFoundError, StorageError
from lago_images.repository.records import layout
from lago_images.settings import Settings
from lago_images.storage.open import open_store
from tests.servers.model import Server
from tests.support import policies

PREFIX = "our/images/"
KEYED = (layout.signed_index("A" * 40), layout.key_file("A" * 40))
COPY = "images/debian-12/x86_64/b1.0badcafe/"
# What the public may read: the copies that the publisher made, and what names them.
PUBLIC = (
    f"{COPY}debian-12.qcow2.xz",
    f"{COPY}manifest.json",
    "releases/debian-12/x86_64/1.json",
    *layout.RENDERED,
    *KEYED,
)
STAGED = "builds/debian-12/x86_64/b1/manifest.json"
PRIVATE = (STAGED, "state/cache.json", "state/published.json", "state/probe/x")
THEIRS = ("other", "our/index", "our/imagesX/index", "another/builds/x")


def ours(key: str) -> str:
    return PREFIX + key


@pytest.fixture(scope="module")
def bucket(ceph20):
    """Everything is in it once; and what another application has."""
    name = policies.guarded_bucket(ceph20, PREFIX)
    for key in (*map(ours, (*PUBLIC, *PRIVATE)), *THEIRS):
        ceph20.client().put_object(Bucket=name, Key=key, Body=key.encode())
    return name


def refused(call, **arguments) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def user(server: Server, name: str):
    return replace(server, access_key=f"{name}key", secret_key=f"{name}secret").client()


@pytest.fixture
def builder(ceph20):
    return user(ceph20, "builder")


@pytest.fixture
def publisher(ceph20):
    return user(ceph20, "publisher")


@pytest.fixture
def anybody(ceph20):
    return boto3.client(
        "s3",
        endpoint_url=ceph20.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )


def listed(client, bucket: str, prefix: str) -> set[str]:
    return {e["Key"] for e in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]}


@pytest.mark.parametrize("key", [*PUBLIC, *(k for k in PRIVATE if k != STAGED)])
def test_the_builder_cannot_write_outside_builds(builder, bucket, key):
    """Neither what is rendered nor what was released: it could be what clients download."""
    assert refused(builder.put_object, Bucket=bucket, Key=ours(key), Body=b"x")
    assert refused(builder.create_multipart_upload, Bucket=bucket, Key=ours(key))
    source = {"Bucket": bucket, "Key": ours(STAGED)}
    assert refused(builder.copy_object, Bucket=bucket, Key=ours(key), CopySource=source)


@pytest.mark.parametrize("key", THEIRS)
@pytest.mark.parametrize("name", ["builder", "publisher"])
def test_no_role_reaches_another_applications_objects(ceph20, bucket, name, key):
    client = user(ceph20, name)
    assert refused(client.put_object, Bucket=bucket, Key=key, Body=b"x")
    assert refused(client.get_object, Bucket=bucket, Key=key)
    assert refused(client.delete_object, Bucket=bucket, Key=key)
    assert refused(client.list_objects_v2, Bucket=bucket, Prefix=key[:2])


def test_the_builder_writes_builds_and_reads_the_repository(builder, bucket):
    key = ours("builds/debian-12/x86_64/b2/manifest.json")
    builder.put_object(Bucket=bucket, Key=key, Body=b"{}", IfNoneMatch="*")
    for known in (*PUBLIC, *PRIVATE):
        assert builder.get_object(Bucket=bucket, Key=ours(known))["Body"].read()
    assert key in listed(builder, bucket, ours("builds/"))
    # Absence is proven: what is missing is a 404, and not refused.
    with pytest.raises(ClientError, match="NoSuchKey"):
        builder.get_object(Bucket=bucket, Key=ours("state/none.json"))


def test_the_builder_uploads_in_parts(builder, bucket):
    key = ours("builds/debian-12/x86_64/b3/debian-12.qcow2.xz")
    upload_in_parts(builder, bucket, key)
    assert builder.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    begun = builder.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    builder.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun)
    with pytest.raises(ClientError, match="NoSuch"):
        builder.list_parts(Bucket=bucket, Key=key, UploadId=begun)


def upload_in_parts(client, bucket: str, key: str, **condition: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    place = {"Bucket": bucket, "Key": key, "UploadId": upload}
    part = client.upload_part(**place, PartNumber=1, Body=b"x")
    assert client.list_parts(**place)["Parts"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(**place, MultipartUpload=parts, **condition)


@pytest.mark.parametrize("name", ["builder", "publisher"])
def test_no_role_can_change_the_bucket_policy(ceph20, bucket, name):
    client = user(ceph20, name)
    assert refused(client.delete_bucket_policy, Bucket=bucket)
    assert refused(client.put_bucket_acl, Bucket=bucket, ACL="public-read-write")


def test_the_builder_deletes_nothing(builder, bucket):
    for key in (*PUBLIC, *PRIVATE):
        assert refused(builder.delete_object, Bucket=bucket, Key=ours(key))


def test_the_publisher_writes_everything_but_builds(publisher, bucket):
    source = {"Bucket": bucket, "Key": ours(STAGED)}
    publisher.copy_object(Bucket=bucket, Key=ours(COPY + "packages.txt"), CopySource=source)
    for key in (*PUBLIC, "state/published.json"):
        publisher.put_object(Bucket=bucket, Key=ours(key), Body=b"new")
    upload_in_parts(publisher, bucket, ours(COPY + "large"))
    staged = ours("builds/debian-12/x86_64/b9/manifest.json")
    assert refused(publisher.put_object, Bucket=bucket, Key=staged, Body=b"x")
    assert refused(publisher.create_multipart_upload, Bucket=bucket, Key=staged)
    # gc: what staging and the public part no longer need.
    scrap = ours("images/x/x86_64/b/scrap")
    publisher.put_object(Bucket=bucket, Key=scrap, Body=b"x")
    publisher.delete_object(Bucket=bucket, Key=scrap)
    assert publisher.list_multipart_uploads(Bucket=bucket, Prefix=PREFIX)
    assert listed(publisher, bucket, ours("releases/")) == {
        ours("releases/debian-12/x86_64/1.json")
    }


def test_anonymous_clients_read_published_objects_only(anybody, bucket):
    """What builders upload may be anything: it is read by the project alone."""
    for key in PUBLIC:
        assert anybody.get_object(Bucket=bucket, Key=ours(key))["Body"].read()
    for key in (*map(ours, PRIVATE), *THEIRS):
        assert refused(anybody.get_object, Bucket=bucket, Key=key)
    assert listed(anybody, bucket, ours("releases/"))
    assert listed(anybody, bucket, ours("images/"))
    for prefix in ("", PREFIX, ours("builds/"), ours("state/"), "o"):
        assert refused(anybody.list_objects_v2, Bucket=bucket, Prefix=prefix)


def test_a_plan_of_a_fork_reads_published_objects_only(ceph20, bucket, tmp_path):
    """Without credentials the refusal of what is private is its absence, and of nothing else."""
    keyless = {k: v for k, v in ceph20.environ.items() if "KEY" not in k}
    store = open_store(
        f"s3://{bucket}/{PREFIX}",
        settings=Settings(folder=tmp_path),
        environ=keyless,
        console=Console(quiet=True),
    )
    assert [stat.key for stat in store.list("releases/")] == ["releases/debian-12/x86_64/1.json"]
    assert store.get("releases/debian-12/x86_64/1.json").data
    assert store.head(f"{COPY}manifest.json").size
    for key in PRIVATE:
        assert list(store.list(key.partition("/")[0] + "/")) == []
        with pytest.raises(NotFoundError):
            store.get(key)
        with pytest.raises(NotFoundError):
            store.head(key)
    with pytest.raises(StorageError, match="without credentials"):
        store.put("releases/debian-12/x86_64/9.json", b"{}", expected=None)
    for ask in (store.get, store.head, lambda prefix: list(store.list(prefix))):
        with pytest.raises(StorageError, match="without credentials") as caught:
            ask("other")
        assert not isinstance(caught.value, NotFoundError)


def test_writing_needs_credentials(anybody, bucket):
    for key in (*map(ours, (*PUBLIC, *PRIVATE)), *THEIRS):
        assert refused(anybody.put_object, Bucket=bucket, Key=key, Body=b"x")
        assert refused(anybody.delete_object, Bucket=bucket, Key=key)


@pytest.fixture
def aws(ceph20):
    """A bucket without a policy of its own, and clients that the stand-in holds to AWS's."""
    name = ceph20.new_bucket()

    def client(*files: str):
        # Never the cached one, which would be held to it for ever.
        made = boto3.client(
            "s3",
            endpoint_url=ceph20.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ceph20.access_key,
            aws_secret_access_key=ceph20.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        texts = [policies.text_of(f"{file}-aws.json", name, PREFIX) for file in files]
        return policies.held_to(made, *texts)

    return name, client


def test_on_aws_a_builder_creates_builds_and_never_overwrites_one(aws):
    """``If-None-Match`` is what its policy asks of all that creates an object."""
    bucket, client = aws
    builder = client("public", "builder")
    key = ours(STAGED)
    assert refused(builder.put_object, Bucket=bucket, Key=key, Body=b"{}")
    builder.put_object(Bucket=bucket, Key=key, Body=b"{}", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        builder.put_object(Bucket=bucket, Key=key, Body=b"evil", IfNoneMatch="*")
    source = {"Bucket": bucket, "Key": key}
    assert refused(
        builder.copy_object, Bucket=bucket, Key=ours("builds/x/y/z/w"), CopySource=source
    )
    assert refused(builder.delete_object, Bucket=bucket, Key=key)
    for other in (*map(ours, PUBLIC), *THEIRS):
        assert refused(builder.put_object, Bucket=bucket, Key=other, Body=b"x", IfNoneMatch="*")
        assert refused(builder.create_multipart_upload, Bucket=bucket, Key=other)


def test_on_aws_multipart_uploads_are_completed_conditionally(aws):
    """Its parts cannot be conditional, and create no object."""
    bucket, client = aws
    builder = client("public", "builder")
    key = ours("builds/debian-12/x86_64/b1/debian-12.qcow2.xz")
    upload_in_parts(builder, bucket, key, IfNoneMatch="*")
    upload = builder.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    place = {"Bucket": bucket, "Key": key, "UploadId": upload}
    part = builder.upload_part(**place, PartNumber=1, Body=b"evil")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    assert refused(builder.complete_multipart_upload, **place, MultipartUpload=parts)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        builder.complete_multipart_upload(**place, MultipartUpload=parts, IfNoneMatch="*")
    builder.abort_multipart_upload(**place)
    assert builder.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"


def test_on_aws_a_publisher_copies_and_overwrites_no_release(aws):
    bucket, client = aws
    publisher, builder = client("public", "publisher"), client("public", "builder")
    builder.put_object(Bucket=bucket, Key=ours(STAGED), Body=b"{}", IfNoneMatch="*")
    source = {"Bucket": bucket, "Key": ours(STAGED)}
    publisher.copy_object(Bucket=bucket, Key=ours(COPY + "manifest.json"), CopySource=source)
    release = ours("releases/debian-12/x86_64/1.json")
    assert refused(publisher.put_object, Bucket=bucket, Key=release, Body=b"{}")
    publisher.put_object(Bucket=bucket, Key=release, Body=b"{}", IfNoneMatch="*")
    for key in ("index", "state/published.json"):
        publisher.put_object(Bucket=bucket, Key=ours(key), Body=b"1")
        publisher.put_object(Bucket=bucket, Key=ours(key), Body=b"2")
    assert refused(publisher.put_object, Bucket=bucket, Key=ours("builds/x"), Body=b"x")
    assert refused(publisher.put_object, Bucket=bucket, Key="other", Body=b"x")
    publisher.delete_object(Bucket=bucket, Key=ours(STAGED))


def test_on_aws_anonymous_clients_read_published_objects_only(aws, ceph20):
    bucket, client = aws
    for key in (*map(ours, (*PUBLIC, *PRIVATE)), *THEIRS):
        ceph20.client().put_object(Bucket=bucket, Key=key, Body=b"x")
    anybody = client("public")
    for key in PUBLIC:
        assert anybody.get_object(Bucket=bucket, Key=ours(key))["Body"].read() == b"x"
    for key in (*map(ours, PRIVATE), *THEIRS):
        assert refused(anybody.get_object, Bucket=bucket, Key=key)
        assert refused(anybody.put_object, Bucket=bucket, Key=key, Body=b"x")
    assert listed(anybody, bucket, ours("releases/"))
    assert refused(anybody.list_objects_v2, Bucket=bucket, Prefix=PREFIX)
    assert refused(anybody.list_objects_v2, Bucket=bucket)
