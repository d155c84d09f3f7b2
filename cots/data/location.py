"""Paths in params.yaml that may name a bucket."""

from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from cots.data.bucket import parse_location

# A path of this machine, or `s3://BUCKET/FOLDER`. Readers use it as a `Path`.
Location = Annotated[Path, PlainValidator(parse_location), PlainSerializer(str, when_used="json")]
