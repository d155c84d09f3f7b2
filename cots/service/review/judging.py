"""One round of judging: pairs in a fixed order, and what was decided on them so far."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from cots.data.stored_samples import read_stored_by_id
from cots.data.verdicts import Verdict, pair_key, set_verdict
from cots.index.nearest_captions import NearestCaptions

NUM_NEAREST = 5  # captions of other samples that are shown beside a pair


class JudgingRound:
    """The pairs to judge; safe for several threads.

    Args:
        suspects: from `find_suspects`; of two captions with the same text the first one is judged for both.
        manifest: of the same data.
        shards: the shard folder.
        verdicts: the list to write.
        nearest: finds captions to compare with; None if there is no index.
    """

    def __init__(
        self,
        suspects: pd.DataFrame,
        manifest: pd.DataFrame,
        shards: Path,
        verdicts: Path,
        nearest: NearestCaptions | None,
    ) -> None:
        self._pairs = suspects.drop_duplicates(["id", "text"]).to_dict("records")
        self._manifest = manifest[manifest["id"].isin(suspects["id"])]
        self._samples = {str(row["id"]): row for row in self._manifest.to_dict("records")}
        self._shards, self._path, self._nearest = shards, verdicts, nearest
        self._verdicts: list[Verdict | None] = [None] * len(self._pairs)
        self._judged: list[int] = []  # in the order of the decisions
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pairs)

    def progress(self, after: int = -1) -> dict[str, Any]:
        """How many pairs were accepted and rejected, the one judged last, and the next one that nobody has judged.

        Args:
            after: number of the pair behind which the next one is looked for, and then from the beginning.
        """
        with self._lock:
            counts, total = Counter(self._verdicts), len(self._pairs)
            following = (number % total for number in range(after + 1, after + 1 + total))
            return {
                "total": total,
                "accepted": counts["accepted"],
                "rejected": counts["rejected"],
                "last": self._judged[-1] if self._judged else None,
                "next": next((number for number in following if self._verdicts[number] is None), None),
            }

    def pair(self, number: int) -> dict[str, Any]:
        """A pair as the page shows it, with captions to compare with and the verdict, if there is one."""
        pair = self._pairs[number]
        sample, text = str(pair["id"]), str(pair["text"])
        stored = self._samples[sample]
        own = [str(caption) for caption in stored["captions"]]
        nearest = self._nearest.nearest(sample, own, NUM_NEAREST) if self._nearest else []
        return {
            "number": number,
            "id": sample,
            "caption": text,
            "score": float(pair["score"]),
            "seen": int(pair["seen"]),
            "dropped": int(pair["dropped"]),
            "frames": int(stored["frames"]),
            "others": [caption for caption in own if caption != text],
            "similarity": self._nearest.similarity(sample, text) if self._nearest else None,
            "nearest": [{"caption": caption, "similarity": similarity} for caption, similarity in nearest],
            "verdict": self._verdicts[number],
        }

    def frame(self, number: int, frame: int) -> bytes | None:
        """JPEG bytes of a frame of a pair's image or video; None if there is none.

        Raises:
            BadInput: the shard is missing or damaged.
        """
        sample = str(self._pairs[number]["id"])
        stored = read_stored_by_id(self._shards, self._manifest, [sample]).get(sample)
        return stored.frames[frame] if stored and frame < len(stored.frames) else None

    def judge(self, number: int, verdict: Verdict | None) -> None:
        """Write a verdict, or take it back; it is on the disk when this returns.

        Raises:
            BadInput: the list is damaged.
            OSError: it cannot be written.
        """
        pair = self._pairs[number]
        with self._lock:
            set_verdict(self._path, pair_key(str(pair["id"]), str(pair["text"])), verdict)
            self._verdicts[number] = verdict
            self._judged = [earlier for earlier in self._judged if earlier != number]
            if verdict is not None:
                self._judged.append(number)
