"""What stands in an index folder: the names of its files and the columns of its tables."""

import pyarrow as pa

INDEX, ITEMS, ABOUT = "index.faiss", "items.parquet", "index.json"
FRAMES, PREVIEWS = "frames.safetensors", "previews.tar"
TEXTS, CAPTIONS = "captions.faiss", "captions.parquet"

ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("media", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("origin", pa.string()),
    ]
)
CAPTION_SCHEMA = pa.schema([("caption", pa.string()), ("items", pa.list_(pa.int64()))])
