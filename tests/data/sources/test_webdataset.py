"""Tar files as img2dataset, video2dataset and `tar` write them, and tars that are damaged or hostile."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from cots.data.samples import Fault, Sample
from cots.data.sources import tar_members
from cots.data.sources.holdout import HoldoutConfig
from cots.data.sources.layout_io import IMAGE_SUFFIXES
from cots.data.sources.webdataset import WebdatasetSourceConfig
from cots.errors import BadInput

Encoded = Callable[..., bytes]


def webdataset(path: Path) -> list[Sample]:
    return list(WebdatasetSourceConfig(path=path, holdout=HoldoutConfig(val=0, test=0)).read())


def tar_info(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(
    path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT
) -> None:
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            tar.addfile(tar_info(name, len(data)), io.BytesIO(data))


def details(samples: list[Sample]) -> list[str | None]:
    return [sample.fault.detail if sample.fault else None for sample in samples]


def test_tar_members_of_one_key_become_one_sample(tmp_path: Path, make_image: Encoded) -> None:
    write_tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": make_image(),
            "000000000.json": b'{"caption": "another text"}',
            "000000000.txt": "a café".encode(),
            "000000001.png": make_image(kind="PNG"),
            "000000001.json": b'{"caption": "from the json"}',
            "000000002.json": b'{"caption": null}',
        },
    )
    first, second, third = webdataset(tmp_path)
    assert (first.id, first.captions, first.content) == ("00000/000000000", ("a café",), make_image())
    assert (second.captions, second.content) == (("from the json",), make_image(kind="PNG"))
    assert (third.captions, third.content) == (("",), b"")


def test_video2datasets_tars_have_videos(tmp_path: Path, make_image: Encoded) -> None:
    members = {
        "0.mp4": b"video",
        "0.txt": b"x",
        "0.json": b"{}",
        "1.webm": b"other",
        "1.txt": b"y",
        "2.jpg": make_image(),
    }
    write_tar(tmp_path / "00000.tar", members)
    video, other, image = webdataset(tmp_path)
    assert (video.media, video.content, video.captions) == ("video", b"video", ("x",))
    assert (other.media, other.content) == ("video", b"other")
    assert (image.media, image.content) == ("image", make_image())


def test_a_tar_that_is_cut_short_is_refused_by_name(tmp_path: Path, make_image: Encoded) -> None:
    write_tar(tmp_path / "00000.tar", {"0.jpg": make_image(), "0.txt": b"x", "1.jpg": make_image(), "1.txt": b"y"})
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[: 512 + len(make_image()) // 2])
    with pytest.raises(BadInput, match=r"00000.tar is damaged"):
        webdataset(tmp_path)


@pytest.mark.parametrize("prefix", ["", "./", "set.v1.0/", "./a.b/c/", "../", "/abs/"])
def test_keys_are_those_of_webdataset_whatever_folders_the_members_are_in(tmp_path: Path, prefix: str) -> None:
    members = [(f"{prefix}{n:05d}.{suffix}", b"-") for n in range(3) for suffix in ("jpg", "txt")]
    write_tar(tmp_path / "0.tar", members)
    samples = webdataset(tmp_path)
    with (tmp_path / "0.tar").open("rb") as file:
        expected = [
            sample["__key__"] for sample in group_by_keys(tar_file_expander([{"url": "0.tar", "stream": file}]))
        ]
    assert [sample.id for sample in samples] == [f"0/{key.removeprefix('./')}" for key in expected]
    assert details(samples) == [None] * 3


def test_members_of_one_key_need_not_be_adjacent(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar", [(f"{n}.{suffix}", f"{n}{suffix}".encode()) for suffix in ("txt", "jpg") for n in "abc"]
    )
    samples = webdataset(tmp_path)
    assert [(s.id, s.content, s.captions) for s in samples] == [
        (f"0/{n}", f"{n}jpg".encode(), (f"{n}txt",)) for n in "abc"
    ]


def test_a_key_that_comes_again_is_a_second_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", b"1"), ("a.txt", b"one"), ("a.jpg", b"2"), ("a.txt", b"two")])
    assert [(s.id, s.content, s.captions) for s in webdataset(tmp_path)] == [
        ("0/a", b"1", ("one",)),
        ("0/a", b"2", ("two",)),
    ]


def test_names_with_further_dots_are_read_where_they_leave_no_doubt(tmp_path: Path) -> None:
    names = [
        "s.input.JPG",
        "s.output.txt",
        "shot 10.20.30.png",
        "shot 10.20.30.txt",
        "shot 10.20.31.png",
        "shot 10.20.31.txt",
    ]
    write_tar(tmp_path / "0.tar", [(name, name.encode()) for name in (*names, "t.a.jpg", "t.b.png", "t.txt")])
    *clear, doubtful = webdataset(tmp_path)
    assert [(s.id, s.content.decode(), s.captions) for s in clear if isinstance(s.content, bytes)] == [
        ("0/s", "s.input.JPG", ("s.output.txt",)),
        ("0/shot 10.20.30", "shot 10.20.30.png", ("shot 10.20.30.txt",)),
        ("0/shot 10.20.31", "shot 10.20.31.png", ("shot 10.20.31.txt",)),
    ]
    message = "several images or videos: behind the key, the names end in a.jpg, b.png, txt"
    assert (doubtful.id, doubtful.fault) == ("0/t", Fault("no such file", message))


def test_what_systems_leave_behind_is_no_sample_and_every_other_name_is_one(tmp_path: Path) -> None:
    left = ["._a.jpg", "d/._a.txt", ".DS_Store", "d/Thumbs.db", "__MACOSX/d/b.jpg"]
    write_tar(tmp_path / "0.tar", [(name, b"-") for name in (*left, ".b.jpg", "LICENSE", "c.heic", "c.txt")])
    (tmp_path / "._0.tar").write_bytes(b"no tar")
    samples = webdataset(tmp_path)
    assert [sample.id for sample in samples] == ["0/.b", "0/LICENSE", "0/c"]
    assert details(samples)[2] == "no image or video: behind the key, the names end in heic, txt"


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, "JPG", "Tiff"])
def test_images_may_have_any_ending_of_a_kind_that_is_read_from_folders(tmp_path: Path, suffix: str) -> None:
    write_tar(tmp_path / "0.tar", {f"a.{suffix}": b"image", "a.txt": b"x"})
    (sample,) = webdataset(tmp_path)
    assert (sample.content, sample.media, sample.fault) == (b"image", "image", None)


@pytest.mark.parametrize(
    ("data", "captions"),
    [
        (b'{"caption": "one"}', ("one",)),
        (b'{"caption": ["one", null, "two"]}', ("one", "", "two")),
        (b'{"caption": null}', ("",)),
        (b'{"caption": []}', ("",)),
        (b"{}", ("",)),
        (b"\xef\xbb\xbf{}", ("",)),
    ],
)
def test_a_json_member_has_one_caption_or_several_or_none(
    tmp_path: Path, data: bytes, captions: tuple[str, ...]
) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"-", "a.json": data})
    (sample,) = webdataset(tmp_path)
    assert (sample.captions, sample.fault) == (captions, None)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"width": ' + b"9" * 5000 + b"}",
        b"",
        b"\xff",
        b'["caption"]',
        b'{"caption": 5}',
        b'{"caption": ["a", {}]}',
    ],
    ids=["brackets", "digits", "empty", "bytes", "list", "number", "object"],
)
def test_a_json_member_without_a_text_is_the_fault_of_its_sample_alone(tmp_path: Path, data: bytes) -> None:
    write_tar(
        tmp_path / "0.tar",
        [*((f"{n}.{e}", b"x") for n in "ac" for e in ("jpg", "txt")), ("b.jpg", b"-"), ("b.json", data)],
    )
    faults = {sample.id: sample.fault and sample.fault.reason for sample in webdataset(tmp_path)}
    assert faults == {"0/a": None, "0/b": "caption not text", "0/c": None}


def test_hard_links_have_the_bytes_of_their_file_and_other_links_are_faults(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.addfile(tar_info("a.jpg", 5), io.BytesIO(b"image"))
        tar.addfile(tar_info("b.jpg", type=tarfile.LNKTYPE, linkname="a.jpg"))
        tar.addfile(tar_info("c.jpg", type=tarfile.LNKTYPE, linkname="gone.jpg"))
        tar.addfile(tar_info("d.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
        tar.addfile(tar_info("e.jpg", type=tarfile.FIFOTYPE))
        tar.addfile(tar_info("folder", type=tarfile.DIRTYPE))
    samples = webdataset(tmp_path)
    assert [sample.content for sample in samples] == [b"image", b"image", b"", b"", b""]
    assert details(samples)[2:] == [
        "c.jpg is not stored as a plain file",
        "d.jpg is a link to /etc/passwd: pack with `tar --dereference`",
        "e.jpg is not stored as a plain file",
    ]


def test_a_sparse_member_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.addfile(tar_info("a.jpg", 1, pax_headers=headers), io.BytesIO(b"-"))
        tar.addfile(tar_info("b.jpg", 1), io.BytesIO(b"-"))
    assert details(webdataset(tmp_path)) == ["a.jpg is not stored as a plain file", None]


def test_an_image_of_more_than_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    size = (1 << 30) + 1
    with (tmp_path / "0.tar").open("wb") as file:  # a file with a hole, so that no gibibyte is written
        file.write(tar_info("a.jpg", size).tobuf())
        file.seek(512 + (1 << 30) + 512)
        file.write(bytes(1024))
    assert details(webdataset(tmp_path)) == ["a.jpg has 1,073,741,825 bytes, at most 1,073,741,824 are read"]


@pytest.mark.parametrize("name", ["0.tar", "1.tar.gz", "1.TGZ", "1.tar.zst"])
def test_a_compressed_tar_is_refused_and_never_left_out(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"-"})
    (tmp_path / name).write_bytes(gzip.compress((tmp_path / "0.tar").read_bytes()))
    with pytest.raises(BadInput, match=rf"{name} is compressed: unpack it to a plain tar"):
        webdataset(tmp_path)


def test_a_tar_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_MEMBERS", 3)
    write_tar(tmp_path / "0.tar", [(f"{n}.jpg", b"") for n in range(3)])
    assert len(webdataset(tmp_path)) == 3
    write_tar(tmp_path / "0.tar", [(f"{n}.jpg", b"") for n in range(4)])
    with pytest.raises(BadInput, match=r"0\.tar has more than 3 members"):
        webdataset(tmp_path)


NEGATIVE = b"\xff" * 10 + b"\xfc\x00"  # -1024, as GNU tar writes numbers that do not fit; the header would come again


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: 4 * 512], "it is cut short"),  # between two members
        (lambda data: data[: 4 * 512] + b"x" * 512 + data[5 * 512 :], "no header at byte 2048"),
        (lambda data: data[: 4 * 512] + bytes(512) + data[5 * 512 :], "no header at byte 2048"),
        (lambda data: data + data, "no header at byte 3072"),  # `cat a.tar b.tar`
        (lambda data: data[: 4 * 512 - 100] + data[-10240:], "is damaged"),
    ],
    ids=["cut", "header", "zeros", "twice", "shifted"],
)
def test_a_damaged_tar_is_refused_and_no_member_behind_the_damage_vanishes(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"-", "b.jpg": b"-", "c.jpg": b"-"})
    data = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(damage(data))
    with pytest.raises(BadInput, match=message) as raised:
        webdataset(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.timeout(20)
def test_a_member_of_negative_size_does_not_come_again_and_again(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"-", "b.jpg": b"-"})
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1024 + 124 : 1024 + 136] = NEGATIVE
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(BadInput, match="negative size"):
        webdataset(tmp_path)
