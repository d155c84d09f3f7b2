"""Targets of retrieval: which media each finds, and the names of its two directions."""

from typing import Literal

Target = Literal["image-text", "video-text"]
Media = Literal["image", "video"]
DirectionName = Literal["i2t", "t2i", "v2t", "t2v"]

MEDIA: tuple[Media, ...] = ("image", "video")
MEDIA_OF: dict[Target, Media] = {"image-text": "image", "video-text": "video"}
TARGET_OF: dict[Media, Target] = {media: target for target, media in MEDIA_OF.items()}
DIRECTIONS: dict[Media, tuple[str, str]] = {  # from items to texts, and from texts to items
    "image": ("i2t", "t2i"),
    "video": ("v2t", "t2v"),
}
TEXT_FIRST = tuple(name for pair in DIRECTIONS.values() for name in reversed(pair))  # the order of tables for people
LABELS: dict[str, str] = {
    "i2t": "image to text",
    "t2i": "text to image",
    "v2t": "video to text",
    "t2v": "text to video",
}
