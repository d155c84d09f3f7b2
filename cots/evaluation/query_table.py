"""Format of the query table: one row per query of either direction, the input of `cots compare` and of the gate."""

import pyarrow as pa

RIGHT_RANKS = "right_ranks"  # tables of release 0.1 lack this column
SCHEMA = pa.schema(
    [
        ("direction", pa.string()),
        ("query", pa.string()),  # unique within its direction
        ("item", pa.string()),  # id of the sample
        ("caption", pa.int32()),  # number of the caption, null if the item is the query
        ("rank", pa.int32()),
        ("relevant", pa.int32()),  # number of right candidates
        ("candidates", pa.int32()),
        ("average_precision", pa.float64()),  # AP@R, 0 to 1
        (RIGHT_RANKS, pa.list_(pa.int32())),  # of all right candidates, ascending
    ]
)
NAMES = ["direction", "query", "item"]
NUMBERS = ["rank", "relevant", "candidates", "average_precision"]
IN_COMMON = [*NAMES, "relevant", "candidates"]  # must be the same for two models to be compared
