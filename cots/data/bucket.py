"""Files of a bucket, with as much of `pathlib.Path` as readers of a source and the store use.

`s3fs` (the extra `s3`) is imported when a bucket is first used. Region, endpoint and credentials are those of
the AWS variables and files, as for `aws` and boto3.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SCHEME = "s3://"
MAX_KEY_BYTES = 1024  # of S3


class FileStat(NamedTuple):
    """What a bucket tells of a file, by the names of `os.stat_result`."""

    st_size: int  # bytes
    st_mtime: float  # when it was written, seconds since 1970
    etag: str = ""  # another one for other content


class BucketPath(PurePosixPath):
    """A file or folder of a bucket: `/BUCKET/KEY`, shown as `s3://BUCKET/KEY`.

    Paths are joined as on a disk, so a name that a data set gives can leave its folder as little as there. A folder is
    what stands before a slash in a key. Methods do what those of `Path` do.
    """

    @classmethod
    def parse(cls, address: str) -> "BucketPath":
        """The path of an address `s3://BUCKET/KEY`.

        Raises:
            ValueError: it names no bucket.
        """
        if not (name := address.removeprefix(SCHEME).strip("/")):
            raise ValueError(f"{address!r} names no bucket: write {SCHEME}BUCKET/FOLDER")
        return cls(f"/{name}")

    def __str__(self) -> str:
        return SCHEME + self.key if self.root else super().__str__()

    @property
    def key(self) -> str:
        """Its name for the client: `BUCKET/KEY`."""
        return "/".join(self.parts[1:])

    @property
    def filesystem(self) -> "AbstractFileSystem":
        """The client of the bucket, which s3fs keeps for each thread. It does not list a folder twice by `iterdir`."""
        import s3fs

        return s3fs.S3FileSystem()

    def exists(self) -> bool:  # noqa: D102
        return bool(self.filesystem.exists(self.key))

    def is_file(self) -> bool:  # noqa: D102
        return bool(self.filesystem.isfile(self.key))

    def is_dir(self) -> bool:  # noqa: D102
        return bool(self.filesystem.isdir(self.key))

    def iterdir(self) -> Iterator["BucketPath"]:  # noqa: D102
        for name in self.filesystem.ls(self.key, detail=False):
            if name.strip("/") != self.key:  # some tools mark a folder by an empty object of its name
                yield BucketPath(f"/{name}")

    def glob(self, pattern: str) -> Iterator["BucketPath"]:  # noqa: D102
        for name in self.filesystem.glob(f"{self.key}/{pattern}"):
            yield BucketPath(f"/{name}")

    def find(self) -> dict[str, FileStat]:
        """The files below this folder, by their paths relative to it, in order; {} if there is no such folder."""
        found = self.filesystem.find(self.key, detail=True)
        return {name.removeprefix(f"{self.key}/"): _stat(entry) for name, entry in sorted(found.items())}

    def stat(self) -> FileStat:
        """Size and time of the file.

        Raises:
            FileNotFoundError: no such file, or a longer name than a file of a bucket can have.
            OSError: the server refuses; nothing is known about the file.
        """
        if len(self.key.encode(errors="surrogateescape")) > MAX_KEY_BYTES:
            raise FileNotFoundError(f"a key has at most {MAX_KEY_BYTES} bytes")
        return _stat(self.filesystem.info(self.key))

    def open(self, mode: str = "r", **text: Any) -> IO[Any]:  # noqa: D102, ANN401  as `Path.open`
        return cast(IO[Any], self.filesystem.open(self.key, mode, **text))

    def read_bytes(self) -> bytes:  # noqa: D102
        return bytes(self.filesystem.cat_file(self.key))

    def read_text(self, encoding: str, errors: str = "strict") -> str:  # noqa: D102
        return self.read_bytes().decode(encoding, errors)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file; a bucket does not tell whether there was one."""
        assert missing_ok
        self.filesystem.rm_file(self.key)

    def resolve(self) -> "BucketPath":
        """The path without `..`; a bucket has no links."""
        return BucketPath(os.path.normpath(f"/{self.key}"))

    def expanduser(self) -> "BucketPath":
        """The path itself; a bucket has no home folders."""
        return self


def _stat(entry: Mapping[str, Any]) -> FileStat:
    written = entry["LastModified"].timestamp() if "LastModified" in entry else 0.0
    return FileStat(entry["size"], written, entry.get("ETag", ""))


def in_bucket(path: PurePath) -> TypeGuard[BucketPath]:
    """Whether a path is one of a bucket."""
    return isinstance(path, BucketPath)


def parse_location(value: object) -> Path:
    """A folder or file of this machine, or of a bucket if it begins with `s3://`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str) and value.startswith(SCHEME):
        return cast(Path, BucketPath.parse(value))
    if isinstance(value, BucketPath):
        return cast(Path, value)
    if not isinstance(value, str | Path):
        raise ValueError("give a path or an address such as s3://BUCKET/FOLDER")
    if "://" in str(value):
        raise ValueError(f"{value} is neither a path nor an address that begins with {SCHEME}")
    return Path(value)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """The file itself, or a copy of a bucket's file that is removed at the end."""
    if not in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cots-") as folder:
        copy = Path(folder) / path.name
        path.filesystem.get_file(path.key, str(copy))
        yield copy
