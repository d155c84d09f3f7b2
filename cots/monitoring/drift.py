"""Whether what people ask and what is new is still what the deployed encoders learnt from.

Two streams leave a gap between texts and pictures, so texts are compared with texts and pictures with pictures. What
they are compared with is held out: rows that the encoders were trained on lie elsewhere than rows they never saw.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.config.drift import DriftConfig
from cots.data.quality.expectations import Bound, CheckResult, check_bounds
from cots.data.samples import SPLITS
from cots.data.stored_samples import decode_frames, read_stored_by_id
from cots.directions import MEDIA
from cots.models.dual_encoder import DualEncoder
from cots.monitoring.mmd import MmdTest, mmd_test, subsample
from cots.monitoring.query_log import LoggedQueries
from cots.monitoring.text_stats import Vocabulary, text_stats
from cots.rounding import rounded

TAILS = (0.01, 0.99)  # the middle 98 % of a number
BATCH = 64

Rows = NDArray[np.float32]
Numbers = NDArray[np.int64]
Encoder = Callable[[Numbers], Rows]  # numbers of some texts or pictures to their vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """One comparison.

    Attributes:
        of: what was compared, such as `queries, texts`.
        rows: how many there are; too_few: why it was not judged, empty where it was.
        verdicts: in order.
        test: of the vectors, where there are any.
    """

    of: str
    rows: int
    skipped_reason: str = ""
    verdicts: tuple[CheckResult, ...] = ()
    test: MmdTest | None = None


class DriftMonitor:
    """Compares with the held-out samples of the data that a model learnt from.

    Args:
        model: the deployed encoders.
        learnt: manifest of the data that they were trained on.
        manifest: of the data as they are now; shards: their folder.
        limits: section `drift`.
    """

    def __init__(
        self, model: DualEncoder, *, learnt: pd.DataFrame, manifest: pd.DataFrame, shards: Path, limits: DriftConfig
    ) -> None:
        self.model, self.learnt, self.manifest, self.shards, self.limits = model, learnt, manifest, shards, limits
        self.held_out = learnt[learnt["split"] != "train"]
        self.vocabulary = Vocabulary(model.tokenizer, learnt.loc[learnt["split"] == "train", "captions"].explode())

    def __call__(self, log: LoggedQueries | None) -> list[DriftCheck]:
        """All comparisons; those of queries where there is a log."""
        known = set(_identities(self.learnt))
        new = self.manifest[[one not in known for one in _identities(self.manifest)]]
        asked = [] if log is None else list(self._queries(log))
        return [*asked, *self._samples(new), self._splits()]

    def _queries(self, log: LoggedQueries) -> Iterator[DriftCheck]:
        yield self._texts("queries, texts", log.texts, lambda rows: log.text_vectors[rows])
        vectors = log.image_vectors
        yield self._pictures("queries, pictures", "image", len(vectors), lambda rows: vectors[rows])

    def _samples(self, new: pd.DataFrame) -> Iterator[DriftCheck]:
        captions = self._one_caption_each(new)
        yield self._texts("new samples, captions", captions, lambda rows: self._encoded(captions, rows))
        yield self._shapes("new samples, sizes", new)
        for media, own in new.groupby("media"):
            yield self._pictures(f"new samples, {media}s", str(media), len(own), partial(self._opened, own))

    def _texts(self, of: str, texts: Sequence[str], encoded: Encoder) -> DriftCheck:
        """Texts against held-out captions, what they look like and where they lie."""
        reference = self._one_caption_each(self.held_out)
        if told := self._too_few(len(texts), len(reference), "captions"):
            return DriftCheck(of=of, rows=len(texts), skipped_reason=told)
        usual = text_stats(reference, self.vocabulary)
        bounds = [
            *(self._range(usual, column) for column in ("words", "characters")),
            Bound(title="words are known", column="unknown", low=0, high=self.limits.max_oov, share=None),
            Bound(title="texts are not blank", column="blank", low=0, high=self.limits.max_blank, share=None),
        ]
        looks = check_bounds(text_stats(texts, self.vocabulary), bounds)
        theirs = self._encoded(reference, self._drawn(len(reference)))
        test, where = self._tested(encoded(self._drawn(len(texts))), theirs)
        return DriftCheck(of=of, rows=len(texts), verdicts=(*looks, where), test=test)

    def _pictures(self, of: str, media: str, number: int, encoded: Encoder) -> DriftCheck:
        """Pictures or clips against held-out ones whose files are still there."""
        known = set(_identities(self.held_out[self.held_out["media"] == media]))
        reference = self.manifest[[one in known for one in _identities(self.manifest)]]
        if told := self._too_few(number, len(reference), f"{media}s"):
            return DriftCheck(of=of, rows=number, skipped_reason=told)
        theirs = self._opened(reference, self._drawn(len(reference)))
        test, where = self._tested(encoded(self._drawn(number)), theirs)
        return DriftCheck(of=of, rows=number, verdicts=(where,), test=test)

    def _shapes(self, of: str, new: pd.DataFrame) -> DriftCheck:
        if told := self._too_few(len(new), len(self.learnt), "samples"):
            return DriftCheck(of=of, rows=len(new), skipped_reason=told)
        verdicts = check_bounds(new, [self._range(self.learnt, column) for column in ("width", "height", "frames")])
        return DriftCheck(of=of, rows=len(new), verdicts=(*verdicts, *self._shares(new, "media", MEDIA)))

    def _splits(self) -> DriftCheck:
        verdicts = self._shares(self.manifest, "split", SPLITS)
        return DriftCheck(of="all samples, splits", rows=len(self.manifest), verdicts=tuple(verdicts))

    def _shares(self, table: pd.DataFrame, column: str, values: Sequence[str]) -> list[CheckResult]:
        """Whether each value is about as frequent as it was."""
        shift, bounds = self.limits.max_shift, []
        for value in values:
            share = float((self.learnt[column] == value).mean())
            title = f"the share of {value} is as before"
            low, high = max(share - shift, 0.0), min(share + shift, 1.0)
            bounds.append(Bound(title=title, column=value, low=low, high=high, share=None))
        return check_bounds(pd.DataFrame({value: (table[column] == value).astype(float) for value in values}), bounds)

    def _range(self, usual: pd.DataFrame, column: str) -> Bound:
        low, high = usual[column].quantile(list(TAILS)).tolist()
        share = 1 - self.limits.max_outside
        return Bound(title=f"{column} as usual", column=column, low=low, high=high, share=share)

    def _tested(self, ours: Rows, theirs: Rows) -> tuple[MmdTest, CheckResult]:
        limits = self.limits
        test = mmd_test(ours, theirs, permutations=limits.permutations, seed=limits.seed)
        return test, CheckResult(
            expectation="vectors lie where held-out ones lie",
            success=test.p > limits.alpha or test.mmd2 < limits.min_mmd2,
            observed=f"{test.mmd2:.4f}, p {test.p:.4f} ({len(ours)} against {len(theirs)})",
            limit=f"squared discrepancy below {limits.min_mmd2:g}, or p above {limits.alpha:g}",
        )

    def _one_caption_each(self, samples: pd.DataFrame) -> list[str]:
        """A caption a sample, of those not known to be wrong: five captions of one picture are not five draws."""
        random = np.random.default_rng(self.limits.seed)
        draws = random.random(len(samples))
        right = [
            [text for text, bad in zip(texts, wrong, strict=True) if not bad]
            for texts, wrong in zip(samples["captions"], samples["wrong"], strict=True)
        ]
        return [own[int(draw * len(own))] for own, draw in zip(right, draws, strict=True) if own]

    def _too_few(self, ours: int, theirs: int, what: str) -> str:
        least = self.limits.min_rows
        if ours < least:
            return f"{ours} of the {least} that are needed"
        if theirs < least:
            return f"the champion's data hold {theirs} held-out {what} of the {least} that are needed"
        return ""

    def _drawn(self, rows: int) -> Numbers:
        return subsample(rows, most=self.limits.max_rows, seed=self.limits.seed)

    def _encoded(self, texts: Sequence[str], rows: Numbers) -> Rows:
        return self.model.encode_texts([texts[row] for row in rows], batch_size=BATCH)

    def _opened(self, samples: pd.DataFrame, rows: Numbers) -> Rows:
        ids = samples["id"].iloc[rows].tolist()
        stored = read_stored_by_id(self.shards, self.manifest, ids)
        return self.model.encode_videos((decode_frames(stored[one]) for one in ids), batch_size=BATCH)


def summary(checked: Sequence[DriftCheck], **about: object) -> dict[str, Any]:
    """What `reports/drift/summary.json` holds: the same for the same data, queries and limits.

    Args:
        checked: all comparisons.
        about: what else to tell, ready for JSON.
    """
    judged = [(one.of, verdict) for one in checked for verdict in one.verdicts]
    against = [f"{of}: {v.expectation} ({v.limit}): {v.observed}" for of, v in judged if not v.success]
    return {
        "drifted": bool(against),
        "reasons": against,
        **about,
        "rows": {one.of: one.rows for one in checked},
        "not judged": {one.of: one.skipped_reason for one in checked if one.skipped_reason},
        "checks": [{"of": of, **asdict(verdict)} for of, verdict in judged],
        "vectors": rounded({one.of: one.test._asdict() for one in checked if one.test}),
    }


def _identities(manifest: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Id and pixels: a picture that was replaced under its id is a new one."""
    return zip(manifest["id"], manifest["pixel_hash"], strict=True)
