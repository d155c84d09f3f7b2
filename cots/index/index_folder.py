"""Files of an index folder and the columns of its tables."""

import pyarrow as pa

METADATA = "index.json"
ITEM_INDEX, ITEMS = "index.faiss", "items.parquet"
CAPTION_INDEX, CAPTIONS = "captions.faiss", "captions.parquet"
FIT = "fit.json"  # missing where `cots.evaluation.fit_threshold` finds none, and in folders of earlier releases
FRAMES, THUMBNAILS = "frames.safetensors", "previews.tar"

ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("media", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("origin", pa.string()),
        ("metadata", pa.string()),  # as in the manifest; indices before 0.3 lack the column
    ]
)
CAPTION_SCHEMA = pa.schema([("caption", pa.string()), ("items", pa.list_(pa.int64()))])
