"""The inputs of the COTS losses: encoded pairs with their candidates, logits and masked targets."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cots.distributed import local_slice
from cots.losses.contrastive import info_nce, other_pairs_mask, same_image_mask
from cots.models.encoder import MaskedOutput
from cots.models.queue import PairQueue
from cots.models.token_index import TokenIndex
from cots.objectives.protocol import Batch, KeyFeatures


class Logits(NamedTuple):
    """Logits of both directions over the same candidates: the pairs of the batch, then those of the queue."""

    i2t: Tensor  # (R, B + K)
    t2i: Tensor  # (R, B + K)
    targets: Tensor  # (R,) column of each row's own partner


class CandidateSet(NamedTuple):
    """The candidates of a forward pass: the pairs that the filter kept, then the queue."""

    rows: Tensor  # (B,) indices of the kept pairs in the global batch
    targets: Tensor  # (R,) index of each query's own pair among them
    ignore_mask: Tensor  # (R, B + K) bool, True = not a negative of this query
    images: Tensor  # (K, D) of the queue
    texts: Tensor  # (K, D) of the queue

    def same_image(self, image_index: Tensor) -> Tensor:
        """(R, B + K) bool, True for the other kept pairs of a query's image; `image_index` is the global batch's."""
        kept = image_index[self.rows]
        others = other_pairs_mask(kept[self.targets], kept, self.targets)
        return F.pad(others, (0, self.ignore_mask.shape[1] - len(kept)))


class CandidateFeatures(NamedTuple):
    """Features of the kept pairs: of the online encoders with gradient, or of the momentum encoders."""

    images: Tensor  # (B, D)
    texts: Tensor  # (B, D)


class MaskedTargets(NamedTuple):
    """Positions of the masked patches and tokens of some rows: of each pair, also where pairs share an image."""

    patches: TokenIndex
    encoded_patches: Tensor  # (M,) index of each among the masked patches of the batch's S images
    tokens: TokenIndex
    num_masked_tokens: int  # of the global batch
    num_translated_tokens: int  # of these, those of pairs with a caption in another language


class ClassTargets(NamedTuple):
    """Classes of some rows and of their candidates, by number; -1 = none."""

    rows: Tensor  # (R,)
    candidates: Tensor  # (B,) of the kept pairs
    own_pair: Tensor  # (R, B) bool
    same_image: Tensor  # (R, B) bool, True for all pairs of a query's image, its own too
    share: float  # weight of the mean over these rows: R / number of kept pairs of the global batch that have a class


class EncodedRows(NamedTuple):
    """The encoders' outputs for some rows of a batch, from which every loss is computed."""

    batch: Batch  # R rows
    keys: KeyFeatures
    candidates: CandidateSet
    share: float  # of these rows in the kept pairs of the global batch
    image: Tensor  # (R, D)
    text: Tensor  # (R, D)
    candidate_features: CandidateFeatures | None  # None if no loss compares the unmasked pairs with others
    logits: Logits | None  # None if neither instance nor task level has a weight
    masked_targets: MaskedTargets | None  # None, as the next two, if no loss needs a masked pass
    masked_image: MaskedOutput | None  # None also if only texts are masked
    masked_text: MaskedOutput | None
    other_image: Tensor | None  # (R, D) of a second crop; None without a loss within modalities
    classes: ClassTargets | None  # None if no loss needs classes


def symmetric_info_nce(logits: Logits) -> Tensor:
    """L_i2t + L_t2i."""
    return info_nce(logits.i2t, logits.targets) + info_nce(logits.t2i, logits.targets)


def select_candidates(keys: KeyFeatures, queries: Tensor, queue: PairQueue, *, in_batch: bool) -> CandidateSet:
    """The candidates of some of this rank's pairs.

    Args:
        keys: of the global batch; queries: (R,) indices of the pairs among this rank's.
        queue: of past pairs.
        in_batch: whether the other pairs of the batch are negatives.
    """
    kept = keys.keep_mask.nonzero()[:, 0]
    index_among_kept = keys.keep_mask.cumsum(dim=0) - 1  # of each pair of the global batch
    targets = index_among_kept[local_slice(len(keys.keep_mask))][queries]
    ignore_mask = build_ignore_mask(keys.image_index[kept], targets, queue.image_index, in_batch=in_batch)
    return CandidateSet(kept, targets, ignore_mask, queue.images, queue.texts)


def build_ignore_mask(image_index: Tensor, targets: Tensor, queue_image_index: Tensor, *, in_batch: bool) -> Tensor:
    """Mark the candidates that are not negatives of a query, above all the other pairs of its image.

    Args:
        image_index: (B,) image numbers of the kept pairs; targets: (R,) index of each query among them.
        queue_image_index: (K,) image numbers of the queue's rows.
        in_batch: whether the other pairs of the batch are negatives.

    Returns:
        (R, B + K) bool, True = not a negative of the query.
    """
    query_images = image_index[targets]
    ignored = same_image_mask(query_images, image_index) | (not in_batch)
    ignored = ignored.scatter(1, targets[:, None], False)
    return torch.cat([ignored, same_image_mask(query_images, queue_image_index)], dim=1)


def find_class_targets(rows: Batch, keys: KeyFeatures, candidates: CandidateSet) -> ClassTargets:
    """Classes of some rows and of the kept pairs of the global batch."""
    assert rows.class_index is not None
    assert keys.class_index is not None
    of_candidates, images = keys.class_index[candidates.rows], keys.image_index[candidates.rows]
    columns = torch.arange(len(images), device=images.device)
    share = len(rows.class_index) / max(int((of_candidates >= 0).sum()), 1)
    same_image = same_image_mask(images[candidates.targets], images)
    return ClassTargets(rows.class_index, of_candidates, candidates.targets[:, None] == columns, same_image, share)


def find_masked_targets(rows: Batch, keys: KeyFeatures, candidates: CandidateSet) -> MaskedTargets:
    """Masked positions of some rows."""
    num_masked = int(keys.num_masked_tokens[candidates.rows].sum())
    num_translated = 0 if keys.num_translated_tokens is None else int(keys.num_translated_tokens[candidates.rows].sum())
    patches = TokenIndex.from_mask(rows.per_pair(rows.bool_masked_pos))
    numbers = rows.bool_masked_pos.flatten().cumsum(dim=0).view_as(rows.bool_masked_pos) - 1
    encoded_patches = patches.select(rows.per_pair(numbers))
    return MaskedTargets(patches, encoded_patches, TokenIndex.from_mask(rows.mlm_mask), num_masked, num_translated)
