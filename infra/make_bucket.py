"""Makes the bucket that MLflow and DVC write to, unless it exists: `python make_bucket.py NAME`."""

import sys

import boto3
from botocore.exceptions import ClientError


def make_bucket(name: str) -> None:
    """Make a bucket of this name in the store that `AWS_ENDPOINT_URL` names.

    Raises:
        ClientError: the store refuses, for example because the name belongs to somebody else.
    """
    try:
        boto3.client("s3").create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise


if __name__ == "__main__":
    make_bucket(sys.argv[1])
