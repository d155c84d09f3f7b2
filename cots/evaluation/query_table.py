"""The table of a model's queries: one row a query of either direction, as `cots compare` reads it."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("direction", pa.string()),
        ("query", pa.string()),  # unique in its direction
        ("item", pa.string()),  # the sample's id
        ("caption", pa.int32()),  # its number, null where the item is the query
        ("rank", pa.int32()),
        ("relevant", pa.int32()),  # right candidates
        ("candidates", pa.int32()),
        ("average_precision", pa.float64()),  # AP@R, 0 to 1
    ]
)
NAMES = ["direction", "query", "item"]
NUMBERS = ["rank", "relevant", "candidates", "average_precision"]
IN_COMMON = [*NAMES, "relevant", "candidates"]  # what two models must share to be compared
