"""Drift of queries and new samples: whether they still look like the data that the deployed encoders were trained on.

The embeddings of texts and images are apart in a two-stream model, so texts are compared with texts and images with
images. The reference is held out, because encoders embed training samples differently from samples they never saw.
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
from cots.data.manifest import select_captioned
from cots.data.quality.expectations import Bound, CheckResult, check_bounds
from cots.data.samples import SPLITS
from cots.data.stored_samples import decode_frames, read_stored_by_id
from cots.directions import MEDIA
from cots.models.dual_encoder import DualEncoder
from cots.monitoring.mmd import MmdTest, mmd_test, subsample
from cots.monitoring.query_log import LoggedQueries
from cots.monitoring.text_stats import Vocabulary, text_stats
from cots.rounding import rounded

TAILS = (0.01, 0.99)  # the middle 98 % of a column
BATCH = 64

Rows = NDArray[np.float32]
Indices = NDArray[np.int64]
Encoder = Callable[[Indices], Rows]  # from indices of some texts or images to their embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """One comparison.

    Attributes:
        name: of what was compared, such as `queries, texts`; a key of the summary.
        num_rows: how many there are.
        skipped_reason: why the check was skipped; empty if it was not.
        results: one per expectation.
        test: of the embeddings, if there are any.
    """

    name: str
    num_rows: int
    skipped_reason: str = ""
    results: tuple[CheckResult, ...] = ()
    test: MmdTest | None = None


class DriftMonitor:
    """Compares queries and new samples with held-out samples of the data that a model was trained on.

    Args:
        model: the deployed encoders.
        training_manifest: of the data that they were trained on.
        manifest: of the current data. Samples without captions are left out of both.
        shards: folder of the current data.
        limits: section `drift`.
    """

    def __init__(
        self,
        model: DualEncoder,
        *,
        training_manifest: pd.DataFrame,
        manifest: pd.DataFrame,
        shards: Path,
        limits: DriftConfig,
    ) -> None:
        self.model, self.shards, self.limits = model, shards, limits
        self.manifest, self.training_manifest = map(select_captioned, (manifest, training_manifest))
        is_train = self.training_manifest["split"] == "train"
        self.held_out = self.training_manifest[~is_train]
        self.vocabulary = Vocabulary(model.tokenizer, self.training_manifest.loc[is_train, "captions"].explode())

    def __call__(self, log: LoggedQueries | None) -> list[DriftCheck]:
        """Run all checks; those of queries only if there is a log."""
        known = set(_identities(self.training_manifest))
        new = self.manifest[[identity not in known for identity in _identities(self.manifest)]]
        of_queries = [] if log is None else list(self._check_queries(log))
        return [*of_queries, *self._check_new_samples(new), self._check_splits()]

    def _check_queries(self, log: LoggedQueries) -> Iterator[DriftCheck]:
        yield self._check_texts("queries, texts", log.texts, lambda rows: log.text_vectors[rows])
        vectors = log.image_vectors
        yield self._check_items("queries, pictures", "image", len(vectors), lambda rows: vectors[rows])

    def _check_new_samples(self, new: pd.DataFrame) -> Iterator[DriftCheck]:
        captions = self._one_caption_each(new)
        yield self._check_texts("new samples, captions", captions, lambda rows: self._encode_texts(captions, rows))
        yield self._check_sizes("new samples, sizes", new)
        for media, samples in new.groupby("media"):
            encode = partial(self._encode_samples, samples)
            yield self._check_items(f"new samples, {media}s", str(media), len(samples), encode)

    def _check_texts(self, name: str, texts: Sequence[str], encode: Encoder) -> DriftCheck:
        """Compare lengths of texts with those of all captions, and their embeddings with held-out captions."""
        reference = self._one_caption_each(self.held_out)
        if reason := self._too_few(len(texts), len(reference), "captions"):
            return DriftCheck(name=name, num_rows=len(texts), skipped_reason=reason)
        usual = text_stats(self._one_caption_each(self.training_manifest), self.vocabulary)
        bounds = [
            *(self._usual_range(usual, column) for column in ("words", "characters")),
            Bound(title="words are known", column="unknown", low=0, high=self.limits.max_oov, share=None),
            Bound(title="texts are not blank", column="blank", low=0, high=self.limits.max_blank, share=None),
        ]
        statistics = check_bounds(text_stats(texts, self.vocabulary), bounds)
        theirs = self._encode_texts(reference, self._subsample(len(reference)))
        test, distribution = self._test_embeddings(encode(self._subsample(len(texts))), theirs)
        return DriftCheck(name=name, num_rows=len(texts), results=(*statistics, distribution), test=test)

    def _check_items(self, name: str, media: str, num_rows: int, encode: Encoder) -> DriftCheck:
        """Compare images or videos with held-out ones whose files still exist."""
        held_out = set(_identities(self.held_out[self.held_out["media"] == media]))
        reference = self.manifest[[identity in held_out for identity in _identities(self.manifest)]]
        if reason := self._too_few(num_rows, len(reference), f"{media}s"):
            return DriftCheck(name=name, num_rows=num_rows, skipped_reason=reason)
        theirs = self._encode_samples(reference, self._subsample(len(reference)))
        test, distribution = self._test_embeddings(encode(self._subsample(num_rows)), theirs)
        return DriftCheck(name=name, num_rows=num_rows, results=(distribution,), test=test)

    def _check_sizes(self, name: str, new: pd.DataFrame) -> DriftCheck:
        reference = self.training_manifest
        if reason := self._too_few(len(new), len(reference), "samples"):
            return DriftCheck(name=name, num_rows=len(new), skipped_reason=reason)
        bounds = [self._usual_range(reference, column) for column in ("width", "height", "frames")]
        results = (*check_bounds(new, bounds), *self._check_fractions(new, "media", MEDIA))
        return DriftCheck(name=name, num_rows=len(new), results=results)

    def _check_splits(self) -> DriftCheck:
        results = self._check_fractions(self.manifest, "split", SPLITS)
        return DriftCheck(name="all samples, splits", num_rows=len(self.manifest), results=tuple(results))

    def _check_fractions(self, table: pd.DataFrame, column: str, values: Sequence[str]) -> list[CheckResult]:
        """Check that each value of a column is about as frequent as in the training data."""
        max_shift, bounds = self.limits.max_shift, []
        for value in values:
            fraction = float((self.training_manifest[column] == value).mean())
            low, high = max(fraction - max_shift, 0.0), min(fraction + max_shift, 1.0)
            title = f"the fraction of {value} is as before"
            bounds.append(Bound(title=title, column=value, low=low, high=high, share=None))
        return check_bounds(pd.DataFrame({value: (table[column] == value).astype(float) for value in values}), bounds)

    def _usual_range(self, reference: pd.DataFrame, column: str) -> Bound:
        low, high = reference[column].quantile(list(TAILS)).tolist()
        share = 1 - self.limits.max_outside
        return Bound(title=f"{column} as usual", column=column, low=low, high=high, share=share)

    def _test_embeddings(self, ours: Rows, theirs: Rows) -> tuple[MmdTest, CheckResult]:
        limits = self.limits
        test = mmd_test(ours, theirs, permutations=limits.permutations, seed=limits.seed)
        return test, CheckResult(
            expectation="embeddings are distributed like held-out ones",
            success=test.p > limits.alpha or test.mmd2 < limits.min_mmd2,
            observed=f"MMD² {test.mmd2:.4f}, p {test.p:.4f} ({len(ours)} against {len(theirs)})",
            limit=f"MMD² below {limits.min_mmd2:g}, or p above {limits.alpha:g}",
        )

    def _one_caption_each(self, samples: pd.DataFrame) -> list[str]:
        """A random caption of each sample that is not known to be wrong; captions of one image are not independent."""
        draws = np.random.default_rng(self.limits.seed).random(len(samples))
        right_captions = [
            [caption for caption, is_wrong in zip(captions, wrong, strict=True) if not is_wrong]
            for captions, wrong in zip(samples["captions"], samples["wrong"], strict=True)
        ]
        return [
            captions[int(draw * len(captions))]
            for captions, draw in zip(right_captions, draws, strict=True)
            if captions
        ]

    def _too_few(self, ours: int, theirs: int, noun: str) -> str:
        """Why there are too few rows on one side; empty if there are enough."""
        min_rows = self.limits.min_rows
        if ours < min_rows:
            return f"only {ours} rows, {min_rows} are needed"
        if theirs < min_rows:
            return f"the champion's data has only {theirs} held-out {noun}, {min_rows} are needed"
        return ""

    def _subsample(self, num_rows: int) -> Indices:
        return subsample(num_rows, max_rows=self.limits.max_rows, seed=self.limits.seed)

    def _encode_texts(self, texts: Sequence[str], rows: Indices) -> Rows:
        return self.model.encode_texts([texts[row] for row in rows], batch_size=BATCH)

    def _encode_samples(self, samples: pd.DataFrame, rows: Indices) -> Rows:
        ids = samples["id"].iloc[rows].tolist()
        stored = read_stored_by_id(self.shards, self.manifest, ids)
        return self.model.encode_videos((decode_frames(stored[id_]) for id_ in ids), batch_size=BATCH)


def summarize_checks(checks: Sequence[DriftCheck], **about: object) -> dict[str, Any]:
    """Content of `reports/drift/summary.json`: the same for the same data, queries and limits.

    Args:
        checks: all comparisons.
        about: further entries, JSON-serializable.
    """
    results = [(check.name, result) for check in checks for result in check.results]
    reasons = [
        f"{name}: {result.expectation} ({result.limit}): {result.observed}"
        for name, result in results
        if not result.success
    ]
    return {
        "drifted": bool(reasons),
        "reasons": reasons,
        **about,
        "rows": {check.name: check.num_rows for check in checks},
        "not judged": {check.name: check.skipped_reason for check in checks if check.skipped_reason},
        "checks": [{"of": name, **asdict(result)} for name, result in results],
        "vectors": rounded({check.name: check.test._asdict() for check in checks if check.test}),
    }


def _identities(manifest: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Id and pixel hash: an image that was replaced under its id is a new one."""
    return zip(manifest["id"], manifest["pixel_hash"], strict=True)
