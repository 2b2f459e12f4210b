"""The S3-compatible store of conftest.py's `endpoint`: its names and its contents."""

from collections.abc import Callable

import boto3
import pytest

from pipeline.config.schema import Cluster
from pipeline.errors import UserError

SECRET = "not-to-be-seen-in-any-file"
S3 = Cluster(storage="s3://there/work")


def names() -> set[str]:
    """Return the bucket's object names, without the empty objects that stand for folders."""
    listed = boto3.client("s3").list_objects_v2(Bucket="there").get("Contents", [])
    return {one["Key"] for one in listed if not one["Key"].endswith("/")}


def one_line(work: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        work()
    message = str(raised.value)
    assert "\n" not in message and SECRET not in message
    return message
