"""The policies for AWS, which is not here: their grammar, and what those tried on Ceph also say."""

import json
from collections import Counter

import pytest

from lago_images.repository.records import layout
from tests.support.policies import POLICIES

# Of each action: what it is asked of, and the condition keys that it has beside those of all.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
BUCKET, OBJECT = "arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/PREFIX"
ACTIONS = {
    "s3:AbortMultipartUpload": (OBJECT, set()),
    "s3:DeleteObject": (OBJECT, {"s3:if-match"}),
    "s3:GetBucketObjectLockConfiguration": (BUCKET, set()),
    "s3:GetBucketVersioning": (BUCKET, set()),
    "s3:GetObject": (OBJECT, set()),
    "s3:ListBucket": (BUCKET, {"s3:prefix", "s3:delimiter", "s3:max-keys"}),
    "s3:ListBucketMultipartUploads": (BUCKET, set()),
    "s3:ListMultipartUploadParts": (OBJECT, set()),
    "s3:PutObject": (
        OBJECT,
        {"s3:if-match", "s3:if-none-match", "s3:ObjectCreationOperation"},
    ),
}
OPERATORS = {"Bool", "Null", "StringLike", "StringLikeIfExists"}


def statements(name):
    return json.loads((POLICIES / name).read_text())["Statement"]


def listed(value):
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["builder-aws", "publisher-aws", "public-aws", "bucket-ceph"])
def test_every_statement_is_of_the_grammar_of_aws(name):
    document = json.loads((POLICIES / f"{name}.json").read_text())
    assert (document.keys(), document["Version"]) == ({"Version", "Statement"}, "2012-10-17")
    names = Counter(each["Sid"] for each in document["Statement"])
    assert max(names.values()) == 1
    for each in document["Statement"]:
        # Of a policy of a bucket; one of a role is for who has it.
        assert ("Principal" in each) == (name in {"public-aws", "bucket-ceph"})
        assert each["Effect"] in {"Allow", "Deny"}
        assert each["Sid"].isalnum()
        keys = {key for wanted in each.get("Condition", {}).values() for key in wanted}
        assert each.get("Condition", {}).keys() <= OPERATORS
        for action in listed(each["Action"]):
            place, known = ACTIONS[action]
            assert keys <= known, each["Sid"]
            for resource in listed(each["Resource"]):
                is_bucket = resource == BUCKET
                assert is_bucket == (place == BUCKET), each["Sid"]
                assert is_bucket or resource.startswith(OBJECT), each["Sid"]


def granted(some):
    """What statements say, an action and a resource each, with their conditions."""
    return {
        (each["Effect"], action, resource, json.dumps(each.get("Condition", {})))
        for each in some
        for action in listed(each["Action"])
        for resource in listed(each["Resource"])
    }


def of(user):
    """The statements of the policy for Ceph, which its tests have in force, for one user."""
    found = [each for each in statements("bucket-ceph.json") if "AWS" in each["Principal"]]
    return [each for each in found if each["Principal"]["AWS"] == [f"arn:aws:iam:::user/{user}"]]


def test_everybody_may_do_the_same_on_aws_as_on_ceph():
    ours = [each for each in statements("bucket-ceph.json") if each["Principal"] == "*"]
    assert ours == statements("public-aws.json")
    read = {resource for _, action, resource, _ in granted(ours) if action == "s3:GetObject"}
    for key in layout.RENDERED:
        folder = key.partition("/")[0]
        assert {f"{OBJECT}{key}", f"{OBJECT}{folder}/*"} & read, key


def test_a_publisher_may_do_the_same_and_not_overwrite_a_release():
    once = json.dumps({"Null": {"s3:if-none-match": "true"}})
    only_here = {("Deny", "s3:PutObject", f"{OBJECT}releases/*", once)}
    assert granted(statements("publisher-aws.json")) == granted(of("PUBLISHER")) | only_here


def test_a_builder_may_do_the_same_and_not_overwrite_a_build():
    write = ("Allow", "s3:PutObject", f"{OBJECT}builds/*")
    conditions = (
        {"Null": {"s3:if-none-match": "false"}},
        {"Bool": {"s3:ObjectCreationOperation": "false"}},
    )
    here = granted(of("BUILDER")) - {(*write, "{}")}
    here |= {(*write, json.dumps(condition)) for condition in conditions}
    assert granted(statements("builder-aws.json")) == here
