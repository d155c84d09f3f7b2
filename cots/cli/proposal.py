"""The parameters that `cots init FOLDER` proposes for a folder, and the lines in which it explains them."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cots.cli.inspect_folder import Findings, other_preset
from cots.cli.presets import read_preset, render_preset, start_of
from cots.config.gate import GateConfig
from cots.config.prepare import PrepareConfig
from cots.container_limits import available_cores
from cots.data.samples import SPLITS, Split
from cots.data.sources.labels import label_of
from cots.directions import TARGET_OF, Media
from cots.registry.gate import detectable_gain, required_test_items
from cots.terminal import escape_controls

GPU_ENCODERS, SMALL_GPU_ENCODERS, CPU_ENCODERS = "siglip2-b16", "siglip2-b32", "clip-b32"
SMALL_GPU = 12 << 30  # bytes of memory below which a batch of 128 pairs at 16 pixels a patch does not fit
EPOCHS, MIN_STEPS, MAX_STEPS = 3, 10, 141  # of encoders that were trained together; preset `folder` has MAX_STEPS
MAX_BATCH, MAX_DVAE_BATCH = 128, 64
IMAGES_PER_CORE = {True: 33.0, False: 11.0}  # a second: CLIP ViT-B/32 on Zen 4, with bf16 or without (2026-11-29)


@dataclass(frozen=True)
class Proposal:
    """A parameter file for a folder.

    Args:
        findings: what the folder holds.
        chosen_encoders: what training starts from, if the user chose it.
    """

    findings: Findings
    chosen_encoders: str | None

    @cached_property
    def media(self) -> Media:
        """Kind of media that the index is for: the one with more captioned samples, or with more samples at all."""
        counts = [
            (self.findings.count(media, captioned=True), self.findings.count(media)) for media in ("image", "video")
        ]
        return "image" if counts[0] >= counts[1] else "video"

    @cached_property
    def preset(self) -> str:
        """The preset that the file begins with."""
        return "folder" if self.media == "image" else "clips"

    @cached_property
    def test_split(self) -> Split:
        """The split to measure on: test, or val if the table has no test."""
        val, test = (self.findings.count(self.media, split, captioned=True) for split in ("val", "test"))
        return "val" if val and not test else "test"

    @cached_property
    def encoders(self) -> tuple[str, str]:
        """What training starts from, and why."""
        if self.chosen_encoders:
            return self.chosen_encoders, "your choice"
        frames = self.findings.count("video") * PrepareConfig().max_frames
        return _encoders_for_hardware(self.findings.count("image") + frames)

    def render(self) -> str:
        """The text of params.yaml.

        Raises:
            BadInput: there are no such encoders.
        """
        source = self.findings.source.model_dump(mode="json")
        values = read_preset(self.preset, self.findings.source.path) | {"source": source}
        return render_preset(self.preset, values, self.encoders[0], self._changes(), self._header())

    def lines(self) -> Iterator[str]:
        """Lines on what the folder holds and what is proposed."""
        findings = self.findings
        table = (
            f"{findings.source.table or findings.table.name}, images in column {findings.source.image_column}"
            if findings.table
            else "no caption table"
        )
        yield _line(
            "found", f"{_counts(findings.count('image'), findings.count('video'))} in {findings.source.path}; {table}"
        )
        yield from self._caption_lines()
        yield from self._split_lines()
        yield self._rejected_line()
        yield _line("encoders", f"{self.encoders[0]}: {self.encoders[1]}")
        yield _line("written", "params.yaml: look through it, every number of a run is there")

    def next_lines(self) -> Iterator[str]:
        """What to type next."""
        can_train = self.findings.count(self.media, "train", captioned=True) > 0
        can_search = start_of(self.encoders[0]) is not None
        if can_search:
            arguments = shlex.join([str(self.findings.source.path), "--encoders", self.encoders[0]])
            yield _line("next", f"cots index {arguments} && cots serve    searches it before any training")
        if can_train:
            label = "then" if can_search else "next"
            yield _line(label, "dvc repro && cots registry publish && cots serve    trains, and deploys what is better")
        elif not can_search:
            yield _line("next", "write captions, or give --encoders that search without training, such as clip-b32")

    def _caption_lines(self) -> Iterator[str]:
        findings, uncaptioned = self.findings, self.findings.count(captioned=False)
        texts = sum(bool(text.strip()) for sample in findings.samples for text in sample.captions)
        column = (
            f", column {findings.source.caption_column}" if findings.table and findings.source.caption_column else ""
        )
        captioned = _counts(*(findings.count(media, captioned=True) for media in ("image", "video")))
        with_captions = f"{texts} captions of {captioned}{column}" if texts else "none"
        without_captions = f"; {uncaptioned} without are searched, not trained or measured on" if uncaptioned else ""
        yield _line("captions", with_captions + without_captions)
        if languages := Counter(tag or "unknown" for sample in findings.samples for tag in sample.languages):
            counts = ", ".join(f"{tag} {number}" for tag, number in languages.most_common())
            yield _line("languages", f"{counts}, column {findings.source.language_column}")
        if findings.table is None and (preset := other_preset(findings.source.path)):
            yield _line("", f"another layout may hold captions: cots init {preset} --data {findings.source.path}")
        if label_column := findings.source.label_column:
            labels = {label_of(sample.metadata, label_column) for sample in findings.samples} - {""}
            yield _line(
                "labels", f"{len(labels)} in {label_column}; captions from them, for training: cots data describe"
            )
        elif findings.table and not findings.source.caption_column:
            yield _line("", "no column looks like captions: name it with --caption-column")
        if findings.unlisted:
            yield _line(
                "", f"{findings.unlisted} more files that the table does not name: --include-unlisted takes them"
            )
        if findings.other_columns:
            yield _line("kept", f"columns {', '.join(findings.other_columns)}, as metadata of the samples")

    def _split_lines(self) -> Iterator[str]:
        findings = self.findings
        if not findings.count(captioned=True):
            return
        counts = ", ".join(f"{split} {findings.count(self.media, split, captioned=True)}" for split in SPLITS)
        origin = (
            "as the table says"
            if findings.given_splits
            else f"about {findings.source.holdout.test:.0%} test, drawn by name"
        )
        yield _line("splits", f"{counts} {self.media}s ({origin})")
        test_items = findings.count(self.media, self.test_split, captioned=True)
        yield _line("gate", _describe_gate(test_items, self._test_noun(), GateConfig()))

    def _test_noun(self) -> str:
        """Noun for the items that encoders are compared on."""
        test = f"test {self.media}s"
        return test if self.test_split == "test" else f"val {self.media}s (there are no {test})"

    def _rejected_line(self) -> str:
        findings, limit = self.findings, PrepareConfig().max_rejected
        if not findings.rejected:
            return _line("rejected", f"none of {findings.opened} that were opened")
        reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(r.reason for r in findings.rejected).most_common())
        first = findings.rejected[0]
        too_many = len(findings.rejected) > limit * findings.opened
        advice = f"; above prepare.max_rejected {limit:g} the run stops: mend or remove them" if too_many else ""
        counts = f"{len(findings.rejected)} of {findings.opened} that were opened"
        return _line("rejected", f"{counts} ({reasons}); first {first.id}: {first.detail}{advice}")

    def _changes(self) -> dict[str, Any]:
        """What this folder changes in the parameters of preset and encoders."""
        pairs = {media: self.findings.count(media, "train", captioned=True) for media in ("image", "video")}
        run = _run_size(sum(pairs.values()), scale_steps=start_of(self.encoders[0]) is not None)
        return {
            "dvae": {"batch_size": min(MAX_DVAE_BATCH, run["batch_size"])},
            "pretrain": run,
            "finetune": {TARGET_OF[self.media]: _run_size(pairs[self.media], scale_steps=False)},
            "evaluate": {"split": self.test_split},
            "index": {"target": TARGET_OF[self.media], "splits": list(SPLITS)},
        }

    def _header(self) -> str:
        """Comment that replaces the preset's, whose times and results are those of another data set."""
        findings = self.findings
        counts = _counts(findings.count("image"), findings.count("video"))
        folder = escape_controls(str(findings.source.path))
        return f"# {counts} in {folder}, from the preset {self.preset} with the encoders {self.encoders[0]}.\n"


def _line(name: str, text: str) -> str:
    return f"{name:<10} {text}"


def _counts(images: int, videos: int) -> str:
    return " and ".join(f"{count} {kind}" for count, kind in ((images, "images"), (videos, "videos")) if count)


def _encoders_for_hardware(frames: int) -> tuple[str, str]:
    """Name of pretrained encoders that this machine can train, and the reason for them.

    Args:
        frames: number of images and frames of videos to encode.
    """
    import torch

    from cots.devices import compute_dtype, default_device

    device = default_device()
    origin = "from the Hugging Face hub; offline, give --encoders a model's folder, or scratch"
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        name = GPU_ENCODERS if gpu.total_memory >= SMALL_GPU else SMALL_GPU_ENCODERS
        return name, f"{gpu.name} with {gpu.total_memory / (1 << 30):.0f} GB; {origin}"
    if device.type != "cpu":
        return CPU_ENCODERS, f"the smallest that searches before any training, on {device.type}; {origin}"
    cores = available_cores()
    seconds = frames / (cores * IMAGES_PER_CORE[compute_dtype(device) == torch.bfloat16])
    duration = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    return CPU_ENCODERS, f"{cores} cores and no GPU take about {duration} to encode {frames} images; {origin}"


def _describe_gate(test_items: int, noun: str, rules: GateConfig) -> str:
    """Whether the test split is large enough for the gate to pass new encoders, and how large it should be."""
    needed, margin = required_test_items(rules), rules.non_inferiority_margin
    ideal = f"{needed} would show {margin:g}, the gate's margin" if needed else "no number is enough for a margin of 0"
    if test_items < rules.min_test_items:
        fewest = f"the gate passes no new encoders on fewer than {rules.min_test_items} (gate.min_test_items)"
        return f"{test_items} {noun} are too few: {fewest}; {ideal}: caption more, or give test a larger fraction"
    gain = f"{test_items} {noun} are sure to show a gain of {detectable_gain(test_items):.1f} points of mean recall"
    return f"{gain}: enough" if needed and test_items >= needed else f"{gain}; {ideal}"


def _run_size(pairs: int, *, scale_steps: bool) -> dict[str, int]:
    """Batch size of a run, and on request its steps.

    Args:
        pairs: number of its training samples.
        scale_steps: also set the steps, for `EPOCHS` passes over the pairs, and the warm-up.
    """
    batch = min(MAX_BATCH, 1 << max(pairs, 1).bit_length() - 1)
    if not scale_steps:
        return {"batch_size": batch}
    steps = min(max(EPOCHS * pairs // batch, MIN_STEPS), MAX_STEPS)
    return {"batch_size": batch, "steps": steps, "warmup_steps": steps // 7}
