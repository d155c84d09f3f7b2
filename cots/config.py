"""`params.yaml` as frozen, typed sections. A number is chosen in that file or nowhere: no class has a default."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cots.errors import BadInput

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Codes = Annotated[int, Field(ge=2, le=65536)]  # size of a codebook; tokens are stored in 16 bits
PositiveFloat = Annotated[float, Field(gt=0)]
SplitName = Literal["train", "val", "test"]
Target = Literal["image-text", "video-text"]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitCounts(Section):
    """How many samples each split has."""

    train: Positive
    val: Count
    test: Count


class Holdout(Section):
    """Shares of the samples that become val and test where the source names no split."""

    val: Share
    test: Share


class ScenesSource(Section):
    """Drawn scenes, generated from a grammar and a seed."""

    kind: Literal["scenes"]
    path: Path
    seed: int
    size: Positive  # pixels
    pictures: SplitCounts
    clips: SplitCounts
    clip_frames: Positive
    captions: Positive
    wrong_captions: Share


class KarpathySource(Section):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout: a folder with one dataset_*.json and the pictures."""

    kind: Literal["karpathy"]
    path: Path


class CocoSource(Section):
    """COCO's own layout: annotations/captions_<split>2014.json or 2017 and one picture folder a split."""

    kind: Literal["coco"]
    path: Path


class FolderSource(Section):
    """A folder with a caption table (CSV, TSV or JSONL) that names pictures relative to it."""

    kind: Literal["folder"]
    path: Path
    seed: int
    holdout: Holdout


class WebdatasetSource(Section):
    """Tar files as img2dataset writes them: picture, .txt caption and .json side by side."""

    kind: Literal["webdataset"]
    path: Path
    seed: int
    holdout: Holdout


class MsrvttSource(Section):
    """MSR-VTT's JSON and folders of mp4 clips."""

    kind: Literal["msrvtt"]
    path: Path
    protocol: Literal["full", "1k-A"]


Source = Annotated[
    ScenesSource | KarpathySource | CocoSource | FolderSource | WebdatasetSource | MsrvttSource,
    Field(discriminator="kind"),
]


class Prepare(Section):
    """What becomes of a source's pictures on their way into the shards."""

    size: Positive
    frames: Positive
    min_side: Positive
    max_pixels: Positive
    max_caption_chars: Positive
    samples_per_shard: Positive
    max_rejected: Share


class Validate(Section):
    """What the data must satisfy to enter."""

    max_duplicates: Share
    max_leakage: Share
    max_suspects: Share
    max_caption_words: Positive
    sampled_shards: Positive


class ImageStream(Section):
    """The image stream: a timm vision transformer."""

    name: str
    pretrained: bool
    size: Positive
    patch: Positive
    stem: Literal["linear", "convolutions"]
    pool: Literal["class", "mean"]
    options: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def grid(self) -> int:
        """Patches along a side, and visual tokens along a side."""
        return self.size // self.patch

    @model_validator(mode="after")
    def _patches_fill_the_picture(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self


class TextStream(Section):
    """The text stream: a transformers encoder."""

    name: str
    pretrained: bool
    pool: Literal["class", "mean"]
    max_tokens: Positive
    vocab_size: Positive
    options: dict[str, Any]


class Model(Section):
    """Both streams and their shared space."""

    dim: Positive
    image: ImageStream
    text: TextStream


class Anneal(Section):
    """A value that moves from start to end over the run."""

    start: PositiveFloat
    end: PositiveFloat


class TrainedDvae(Section):
    """A discrete VAE of our own, trained on the pictures at hand."""

    kind: Literal["train"]
    seed: int
    codes: Codes
    hidden: Positive
    blocks: Positive
    steps: Positive
    batch: Positive
    learning_rate: PositiveFloat
    temperature: Anneal
    kl_weight: Weight
    checkpoint_every: Positive


class OpenAiDvae(Section):
    """OpenAI's discrete VAE, imported."""

    kind: Literal["openai"]
    seed: int  # of the crops that show what it does
    batch: Positive  # of those crops
    codes: Codes
    path: Path
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of the files of weights


Dvae = Annotated[TrainedDvae | OpenAiDvae, Field(discriminator="kind")]


class Tokenize(Section):
    """The views of each sample: crop boxes drawn once, tokenized once."""

    seed: int
    views: Positive
    scale: tuple[PositiveFloat, PositiveFloat]
    ratio: tuple[PositiveFloat, PositiveFloat]
    batch: Positive

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must rise and end at 1 at most")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must rise")
        return self


class LevelWeights(Section):
    """Weights of the three levels of interaction; 0 switches a level and its cost off."""

    instance: Weight
    token: Weight
    task: Weight


class Filter(Section):
    """The adaptive momentum filter: drop a pair below mean - deviations * sigma, once warmed up."""

    warmup: Count  # steps
    deviations: PositiveFloat | None  # null keeps every pair; the statistics are logged all the same
    momentum: Share


class Mask(Section):
    """What the token level hides."""

    image: Share  # of the patches
    block: Positive  # patches of the smallest block
    text: Share  # of the words


class Temperature(Section):
    """Divisor of the similarities: fixed, or learned from `start` and kept above `least`."""

    start: PositiveFloat
    learned: bool
    least: PositiveFloat

    @model_validator(mode="after")
    def _starts_above_its_least(self) -> Self:
        if self.start < self.least:
            raise ValueError(f"start {self.start} lies below least {self.least}")
        return self


class CotsObjective(Section):
    """The paper's objective. Instance level alone (MoCo's) is weights 1, 0, 0 with `filter.deviations: null`."""

    kind: Literal["cots"]
    weights: LevelWeights
    temperature: Temperature
    batch_negatives: Literal["none", "keys", "queries"]  # beside the queue; none is the paper
    momentum: Share
    queue: Count  # features per modality
    queue_warmup: Count  # steps before keys are queued
    filter: Filter
    mask: Mask
    keep: Literal["trained", "momentum"]  # which streams the run leaves behind

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not (self.weights.instance or self.weights.token or self.weights.task):
            raise ValueError("every weight is 0: nothing would be learnt")
        return self


class ClipObjective(Section):
    """The baseline CLIP: InfoNCE over the batch, both streams with gradient; ALIGN is the same on noisy data."""

    kind: Literal["clip"]
    temperature: Temperature


class SiglipObjective(Section):
    """The baseline SigLIP: a sigmoid loss over the batch's pairs, with a learned bias."""

    kind: Literal["siglip"]
    temperature: Temperature
    bias: float  # at the start


Objective = Annotated[CotsObjective | ClipObjective | SiglipObjective, Field(discriminator="kind")]


class TrainableBlocks(Section):
    """How many of each backbone's last blocks are trained; with `all`, its embeddings too."""

    image: Literal["all"] | Count
    text: Literal["all"] | Count


class Training(Section):
    """One run of an objective, for pre-training and for fine-tuning."""

    seed: int
    steps: Positive
    batch: Positive
    parts: Positive  # that a batch is computed in, one after the other: gradient accumulation
    frames: Positive  # per sample: 1 takes one frame of a clip, more are averaged
    learning_rate: PositiveFloat
    warmup: Count
    weight_decay: Weight
    layer_decay: Annotated[float, Field(gt=0, le=1)]  # of the learning rate, per block from the top down
    trainable_blocks: TrainableBlocks
    checkpoint_gradients: bool  # recompute activations in the backward pass
    max_grad_norm: PositiveFloat
    checkpoint_every: Positive
    objective: Objective

    @property
    def masked(self) -> Mask | None:
        """What the token level hides; None where there is no token level."""
        objective = self.objective
        return objective.mask if isinstance(objective, CotsObjective) and objective.weights.token else None

    @property
    def keeps_momentum(self) -> bool:
        """Whether the run leaves the momentum streams behind, not the trained ones."""
        return isinstance(self.objective, CotsObjective) and self.objective.keep == "momentum"

    @model_validator(mode="after")
    def _tokens_belong_to_one_frame(self) -> Self:
        if self.masked and self.frames > 1:
            raise ValueError(f"weights.token is not 0 with {self.frames} frames: tokens belong to one frame")
        return self

    @model_validator(mode="after")
    def _parts_need_negatives_without_gradient(self) -> Self:
        objective = self.objective
        if self.parts > self.batch:
            raise ValueError(f"parts {self.parts} of a batch of {self.batch}")
        whole = not isinstance(objective, CotsObjective) or objective.batch_negatives == "queries"
        if self.parts > 1 and whole:
            raise ValueError(f"parts {self.parts}: this objective needs its batch whole, its negatives have a gradient")
        return self


class Finetune(Training):
    """A run that goes on from pre-trained streams, at a resolution of its own."""

    size: Positive  # pixels; position embeddings are interpolated where it is not the model's


class Evaluate(Section):
    """How retrieval is measured and shown."""

    split: SplitName
    batch: Positive
    folds: Positive  # 1: the whole split alone
    galleries: Positive
    bootstrap: Positive
    seed: int


class Index(Section):
    """The deployed search index."""

    target: Target
    splits: tuple[SplitName, ...]
    kind: str
    preview: Positive
    recall_queries: Positive


class Gate(Section):
    """What a new version must show to take the champion's place."""

    better: Literal["i2t", "t2i", "v2t", "t2v", "both"] | None  # whose mean recall must gain; null: it need not
    margin: Weight  # points of mean recall that a direction may lose
    max_fall: Weight  # points that the champion itself may lose on changed test queries
    min_recall: Share  # of the index against exact search
    max_ms: PositiveFloat  # a query against the index
    resamples: Positive
    seed: int


class Drift(Section):
    """When incoming queries and new samples are unlike what the deployed encoders learnt from."""

    seed: int
    newest: Positive  # queries that are read
    least: Annotated[int, Field(ge=2)]  # rows a side; fewer are not judged
    sample: Annotated[int, Field(ge=2)]  # rows a side whose vectors are compared, at most
    permutations: Positive
    p: Share
    mmd: Weight
    max_outside: Share
    max_unknown: Share
    max_blank: Share
    max_shift: Share

    @model_validator(mode="after")
    def _p_can_be_reached(self) -> Self:
        if self.p * (self.permutations + 1) < 1:
            raise ValueError(f"p {self.p} cannot be reached by {self.permutations} permutations")
        return self


class Params(Section):
    """All of `params.yaml`."""

    source: Source
    prepare: Prepare
    validate_: Validate = Field(alias="validate")
    model: Model
    dvae: Dvae
    tokenize: Tokenize
    pretrain: Training
    finetune: dict[Target, Finetune]
    evaluate: Evaluate
    index: Index
    gate: Gate
    drift: Drift

    @model_validator(mode="after")
    def _the_deployed_target_is_trained(self) -> Self:
        if self.index.target not in self.finetune:
            raise ValueError(f"index.target {self.index.target!r} is not among finetune {sorted(self.finetune)}")
        return self

    @model_validator(mode="after")
    def _the_gate_asks_of_what_is_measured(self) -> Self:
        known = {"image-text": ("i2t", "t2i"), "video-text": ("v2t", "t2v")}[self.index.target]
        if self.gate.better not in (None, "both", *known):
            raise ValueError(f"gate.better {self.gate.better} is no direction of index.target {self.index.target}")
        return self

    @model_validator(mode="after")
    def _fine_tuned_sizes_fit(self) -> Self:
        image = self.model.image
        for target, run in self.finetune.items():
            if run.size % image.patch:
                raise ValueError(
                    f"finetune.{target}.size {run.size} is not a multiple of model.image.patch {image.patch}"
                )
            if run.masked and run.size != image.size:
                raise ValueError(
                    f"finetune.{target}: the visual tokens are those of {image.size} pixels, size is {run.size}: "
                    "set objective.weights.token to 0"
                )
        return self

    def recipe(self) -> dict[str, Any]:
        """Plain values of all that shapes the model and its index, without what decides about them afterwards."""
        return self.model_dump(mode="json", by_alias=True, exclude={"gate", "drift"})

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Self:
        """Read and check a parameter file.

        Raises:
            BadInput: no such file, not YAML, or wrong keys and values; all mistakes in one message.
        """
        try:
            text = path.read_text(encoding="utf8")
        except FileNotFoundError:
            raise BadInput(
                f"no parameter file {path}: run in the project's folder, or write one with `cots use`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}: {error}") from None
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            mistakes = [f"{'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']}" for e in error.errors()]
            raise BadInput(f"{path}: {len(mistakes)} mistake(s): " + "; ".join(mistakes)) from None
