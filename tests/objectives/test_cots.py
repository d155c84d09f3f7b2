"""The whole objective against a slow reference in float64, and its parts against the whole."""

import copy
import math
from contextlib import ExitStack
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cots.curves import loss_column
from cots.losses.filter import AdaptiveMomentumFilter
from cots.models.class_head import ClassHead
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.heads import MaskedTokenHead
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.objectives.cots import CotsObjective, InBatchNegatives, LossWeights
from cots.objectives.encoded_rows import CandidateFeatures, select_candidates
from cots.objectives.protocol import ALL_ROWS, Batch, KeyFeatures
from cots.training.gradients import micro_batch_slices
from cots.training.trainer import train_step
from tests.backbones import language, vision, vit

PATCHES, TOKENS, CODES, VOCAB, DIM = 4, 6, 16, 30, 8
CLASS_OF_IMAGE = torch.tensor([0, 1, 0, -1, 2, 1])
ALL = LossWeights(
    instance=1.0,
    token=0.5,
    task=0.25,
    masked_views=0.75,
    within_modality=0.3,
    class_contrast=0.4,
    classification=0.6,
)
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def objective(
    *,
    queue: int,
    negatives: InBatchNegatives,
    weights: LossWeights = ALL,
    num_std: float | None = 1.0,
    fused: bool = False,
) -> CotsObjective:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    image_backbone = vision(size=16, fused=fused, embed_dim=16, depth=1, num_heads=2)
    text_backbone = language(vocab=VOCAB, fused=fused, **sizes, **NO_DROPOUT)
    return CotsObjective(
        image=ImageEncoder(image_backbone, dim=DIM, pool="mean"),
        text=TextEncoder(text_backbone, dim=DIM, pool="mean"),
        patch_head=MaskedTokenHead(width=16, dim=DIM, vocab_size=CODES),
        word_head=MaskedTokenHead(width=16, dim=2 * DIM if weights.translation else DIM, vocab_size=VOCAB),
        class_head=ClassHead(dim=DIM, num_classes=3) if weights.classification else None,
        queue=PairQueue(size=queue, dim=DIM, warmup_steps=0),
        noise_filter=AdaptiveMomentumFilter(warmup_steps=0, num_std=num_std, momentum=0.5),
        loss_weights=weights,
        temperature=Temperature(init=0.2, learnable=True, min=0.01),
        in_batch_negatives=negatives,
        momentum=0.9,
    ).double()


def batch(pairs: int) -> Batch:
    ids = torch.randint(5, VOCAB, (pairs, TOKENS))
    bool_masked_pos = torch.zeros(pairs, PATCHES, dtype=torch.bool)
    bool_masked_pos[:, :2] = True
    mlm_mask = torch.rand(pairs, TOKENS) < 0.4
    mlm_mask[0] = False  # a text without masked tokens
    return Batch(
        image_index=torch.arange(pairs) // 2,  # two captions of each image
        caption_index=torch.arange(pairs),
        frame_row=torch.arange(pairs),
        frames=torch.randn(pairs, 1, 3, 16, 16, dtype=torch.float64),
        input_ids=ids,
        attention_mask=torch.ones(pairs, TOKENS, dtype=torch.bool),
        bool_masked_pos=bool_masked_pos,
        visual_tokens=torch.randint(0, CODES, (pairs, PATCHES)),
        mlm_input_ids=torch.where(mlm_mask, 4, ids),
        mlm_mask=mlm_mask,
        other_frames=torch.randn(pairs, 1, 3, 16, 16, dtype=torch.float64),
        class_index=CLASS_OF_IMAGE[torch.arange(pairs) // 2],
    )


def translated_batch(pairs: int) -> Batch:
    """A batch whose images have a caption in another language, but for the second one."""
    ids = torch.randint(5, VOCAB, (pairs, TOKENS - 1))
    attention_mask = torch.arange(TOKENS - 1) < torch.randint(2, TOKENS, (pairs, 1))
    return batch(pairs)._replace(
        translation_input_ids=ids,
        translation_attention_mask=attention_mask,
        has_translation=torch.arange(pairs) != 1,
    )


def after_steps(model: CotsObjective, batches: int, *, pairs: int) -> CotsObjective:
    """The objective after some steps: the queue is filled, the momentum encoders differ, the filter drops pairs."""
    for number in range(batches):
        past = batch(pairs)._replace(image_index=torch.arange(pairs) + 3 * number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.update_state(model.compute_keys(past, [ALL_ROWS]))
    return model


@torch.no_grad()
def slow_losses(model: CotsObjective, some: Batch, keys: KeyFeatures) -> dict[str, float]:
    """The formulas of the paper with loops over pairs, candidates and positions."""
    kept = [row for row in range(len(some.image_index)) if keys.keep_mask[row]]
    image, text = model.image(some.frames), model.text(some.input_ids, some.attention_mask)
    tau, queued = float(model.temperature()), range(int(model.queue.count))
    online = model.in_batch_negatives == "online"

    def distribution(query: Tensor, own: int, keys_of: Tensor, features: Tensor, queue: Tensor) -> dict[object, float]:
        candidates = features if online else keys_of
        scores: dict[object, float] = {"own": float(query @ candidates[own]) / tau}
        for other in kept:
            if model.in_batch_negatives != "none" and some.image_index[other] != some.image_index[own]:
                scores[other] = float(query @ candidates[other]) / tau
        for row in queued:
            if model.queue.image_index[row] != some.image_index[own]:
                scores[f"queue {row}"] = float(query @ queue[row]) / tau
        mass = sum(math.exp(value) for value in scores.values())
        return {name: math.exp(value) / mass for name, value in scores.items()}

    def contrast(image: Tensor, text: Tensor) -> tuple[float, float]:
        instance = task = 0.0
        for row in kept:
            i2t = distribution(image[row], row, keys.texts, text, model.queue.texts)
            t2i = distribution(text[row], row, keys.images, image, model.queue.images)
            instance -= (math.log(i2t["own"]) + math.log(t2i["own"])) / len(kept)
            task += sum((i2t[c] - t2i[c]) * math.log(i2t[c] / t2i[c]) for c in i2t) / 2 / len(kept)
        return instance, task

    instance, task = contrast(image, text)
    patches = masked_pass(model, some)
    words = model.text.backbone(some.mlm_input_ids, some.attention_mask)
    masked_text = model.text(some.mlm_input_ids, some.attention_mask)
    masked_views, _ = contrast(F.normalize(model.image.projection(patches.mean(dim=(1, 2)))), masked_text)
    assert model.word_head
    vision = [
        token_loss(model.patch_head, patches[row, 0, place], text[row], some.visual_tokens[row, place])
        for row in kept
        for place in range(PATCHES)
        if some.bool_masked_pos[row, place]
    ]
    language = [
        token_loss(model.word_head, words[row, place], image[row], some.input_ids[row, place])
        for row in kept
        for place in range(TOKENS)
        if some.mlm_mask[row, place]
    ]
    token = sum(vision) / len(vision) + (sum(language) / len(language) if language else 0.0)
    losses = {"instance": instance, "token": token, "task": task, "masked_views": masked_views}
    losses["within_modality"] = slow_within_modality(model, some, keys)
    return losses | slow_class_losses(model, some, keys)


def slow_within_modality(model: CotsObjective, some: Batch, keys: KeyFeatures) -> float:
    """Second crops against images, and captions against captions, pair by pair."""
    assert some.other_frames is not None
    kept = [row for row in range(len(some.image_index)) if keys.keep_mask[row]]
    texts, crops = model.text(some.input_ids, some.attention_mask), model.image(some.other_frames)
    online = model.in_batch_negatives == "online"
    image_keys, text_keys = (model.image(some.frames), texts) if online else (keys.images, keys.texts)

    def cross_entropy(query: Tensor, positive: Tensor, others: list[Tensor]) -> float:
        scores = torch.stack([query @ vector for vector in (positive, *others)]) / model.temperature()
        return -float(scores.log_softmax(0)[0])

    loss = 0.0
    for row in kept:
        image = some.image_index[row]
        apart = [o for o in kept if model.in_batch_negatives != "none" and some.image_index[o] != image]
        past = [number for number in range(int(model.queue.count)) if model.queue.image_index[number] != image]
        negatives = [*(image_keys[o] for o in apart), *(model.queue.images[number] for number in past)]
        loss += cross_entropy(crops[row], image_keys[row], negatives)
        same = [text_keys[other] for other in kept if other != row and some.image_index[other] == image]
        negatives = [*(text_keys[o] for o in apart), *(model.queue.texts[number] for number in past)]
        for number, positive in enumerate(same):
            others = [*same[:number], *same[number + 1 :], *negatives]
            loss += cross_entropy(texts[row], positive, others) / len(same)
    return loss / len(kept)


def slow_class_losses(model: CotsObjective, some: Batch, keys: KeyFeatures) -> dict[str, float]:
    """Contrast by class within and between the modalities, and the head's cross-entropy, pair by pair."""
    assert some.class_index is not None
    classes, images = some.class_index.tolist(), some.image_index.tolist()
    known = [row for row in range(len(classes)) if keys.keep_mask[row] and classes[row] >= 0]
    online = {"image": model.image(some.frames), "text": model.text(some.input_ids, some.attention_mask)}
    keys_of = online if model.in_batch_negatives == "online" else {"image": keys.images, "text": keys.texts}
    contrast = classification = 0.0
    for (way, queries), (other, features), row in product(online.items(), keys_of.items(), known):
        candidates = [column for column in known if way != other or column != row]
        if way == other == "image":
            candidates = [column for column in candidates if images[column] != images[row]]
        positives = [place for place, column in enumerate(candidates) if classes[column] == classes[row]]
        if positives:
            scores = features[candidates] @ queries[row] / model.temperature()
            contrast -= float(scores.log_softmax(0)[positives].mean()) / len(known)
    for row in known if model.class_head else []:
        head, root = model.class_head, math.sqrt(DIM)
        assert head
        by_image, by_text = (getattr(head, way).weight @ online[way][row] * root for way in ("image", "text"))
        for logits in (by_image, by_text, by_image + by_text):
            classification -= float((logits + head.bias).log_softmax(0)[classes[row]]) / 3 / len(known)
    return {"class_contrast": contrast, "classification": classification}


def masked_pass(model: CotsObjective, some: Batch) -> Tensor:
    """(B, T, N, W): patch tokens of a masked pass, computed frame by frame."""
    backbone, layers, frames = model.image.backbone, vit(model.image), []
    for frame in some.frames.unbind(dim=1):
        patches = layers.patch_embed(frame)
        patches[some.bool_masked_pos] = backbone.mask_token
        frames.append(layers.norm(layers.blocks(layers._pos_embed(patches)))[:, backbone.num_prefix_tokens :])
    return torch.stack(frames, dim=1)


def token_loss(head: MaskedTokenHead, hidden: Tensor, paired: Tensor, target: Tensor) -> float:
    logits = head.output(head.transform(hidden + head.fuse(paired)))
    return -float(logits.log_softmax(0)[target])


@pytest.mark.parametrize("off", [(), ("masked_views", "classification"), ("within_modality",), ("instance", "task")])
@pytest.mark.parametrize("negatives", ["none", "momentum", "online"])
@pytest.mark.parametrize(("pairs", "queue", "past"), [(1, 3, 1), (2, 5, 0), (5, 7, 2), (7, 3, 3)])
def test_the_losses_agree_with_loops_over_the_papers_formulas(
    negatives: InBatchNegatives, pairs: int, queue: int, past: int, off: tuple[str, ...]
) -> None:
    weighted = ALL._replace(**dict.fromkeys(off, 0.0))
    model = after_steps(objective(queue=queue, negatives=negatives, weights=weighted), past, pairs=4)
    some = batch(pairs)
    keys = model.compute_keys(some, [ALL_ROWS])
    output, slow = model(some, keys), slow_losses(model, some, keys)
    for name in off:
        del slow[name]
    assert {name: float(loss) for name, loss in output.losses.items()} == pytest.approx(slow, rel=1e-9, abs=1e-12)
    weights = model.loss_weights._asdict()
    total = float(output.loss.detach())
    assert total == pytest.approx(sum(weights[name] * loss for name, loss in slow.items()), rel=1e-9)


@torch.no_grad()
def slow_translation(model: CotsObjective, some: Batch, keys: KeyFeatures) -> float:
    """-log p(word | its masked text, image, caption in another language), mean over the masked words, with loops."""
    assert some.translation_input_ids is not None
    assert some.translation_attention_mask is not None
    assert some.has_translation is not None
    assert model.word_head
    losses = []
    for row in [row for row in range(len(some.image_index)) if keys.keep_mask[row] and some.has_translation[row]]:
        length = int(some.translation_attention_mask[row].sum())
        other = model.text(some.translation_input_ids[[row], :length], torch.ones(1, length, dtype=torch.bool))
        words = model.text.backbone(some.mlm_input_ids[[row]], some.attention_mask[[row]])
        paired = torch.cat([model.image(some.frames[[row]])[0], other[0]])
        losses += [
            token_loss(model.word_head, words[0, place], paired, some.input_ids[row, place])
            for place in range(TOKENS)
            if some.mlm_mask[row, place]
        ]
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("weights", [ALL._replace(translation=2.0), LossWeights(1.0, 0.0, 0.0, 0.0, translation=2.0)])
@pytest.mark.parametrize("negatives", ["none", "momentum", "online"])
def test_the_translation_agrees_with_a_loop_over_its_words_and_changes_no_other_loss(
    negatives: InBatchNegatives, weights: LossWeights
) -> None:
    model = after_steps(objective(queue=5, negatives=negatives, weights=weights), 2, pairs=4)
    some = translated_batch(7)
    keys = model.compute_keys(some, [ALL_ROWS])
    losses = {name: float(loss) for name, loss in model(some, keys).losses.items()}
    assert losses.pop("translation") == pytest.approx(slow_translation(model, some, keys), rel=1e-9)
    with torch.no_grad():  # the token level reads the half of the head that is the image's
        model.word_head.fuse.weight[:, DIM:].normal_()  # type: ignore[union-attr]
    assert {name: float(loss) for name, loss in model(some, keys).losses.items() if name != "translation"} == losses
    with model.only("instance"):
        assert float(model(some, keys).losses["instance"]) == losses["instance"]


def test_pairs_without_another_language_add_nothing_to_the_translation() -> None:
    weights = LossWeights(0.0, 0.0, 0.0, 0.0, translation=1.0)
    model = objective(queue=0, negatives="online", weights=weights, num_std=None)
    some = translated_batch(4)._replace(has_translation=torch.zeros(4, dtype=torch.bool))
    output = model(some, model.compute_keys(some, [ALL_ROWS]))
    output.loss.backward()
    assert float(output.loss.detach()) == 0.0
    assert all(not gradient.any() for gradient in gradients(model).values())


def assert_parts_add_up(model: CotsObjective, some: Batch, parts: int) -> None:
    """The gradients of micro-batches add up to that of the batch."""
    keys = model.compute_keys(some, micro_batch_slices(len(some.image_index), parts))
    model(some, keys).loss.backward()
    whole = gradients(model)
    for rows in micro_batch_slices(int(keys.keep_mask.sum()), parts):
        model(some, keys, rows).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("parts", [2, 3])
def test_translations_of_micro_batches_add_up(parts: int) -> None:
    weights = LossWeights(1.0, 0.0, 0.0, 0.0, translation=1.0)
    model = after_steps(objective(queue=5, negatives="momentum", weights=weights), 2, pairs=6)
    some = translated_batch(7)
    assert_parts_add_up(model, some, parts)


@pytest.mark.parametrize("negatives", ["none", "momentum", "online"])
def test_the_masked_view_of_a_video_has_the_same_masked_patches_in_every_frame(negatives: InBatchNegatives) -> None:
    model = after_steps(objective(queue=7, negatives=negatives, weights=ALL._replace(token=0.0)), 2, pairs=4)
    some = batch(5)._replace(frames=torch.randn(5, 3, 3, 16, 16, dtype=torch.float64))
    some.bool_masked_pos[1::2] = some.bool_masked_pos[1::2].flip(dims=(1,))
    keys = model.compute_keys(some, [ALL_ROWS])
    losses, slow = model(some, keys).losses, slow_losses(model, some, keys)
    del slow["token"]
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(slow, rel=1e-9, abs=1e-12)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    gradients_by_name = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients_by_name


@pytest.mark.parametrize("negatives", ["none", "momentum"])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_micro_batches_add_up_to_the_losses_and_gradients_of_the_batch(negatives: InBatchNegatives, parts: int) -> None:
    model = after_steps(objective(queue=5, negatives=negatives), 2, pairs=6)
    some = batch(7)
    assert_parts_add_up(model, some, parts)


@pytest.mark.parametrize("negatives", ["none", "momentum", "online"])
@pytest.mark.parametrize("captions", [[1, 1, 1], [3, 3], [2, 1, 4]])
def test_an_image_encoded_once_for_its_captions_has_the_gradients_of_one_copy_for_each(
    negatives: InBatchNegatives, captions: list[int]
) -> None:
    model = after_steps(objective(queue=5, negatives=negatives), 2, pairs=6)
    frame_row = torch.repeat_interleave(torch.tensor(captions))
    pairs = len(frame_row)
    shared = batch(pairs)._replace(image_index=100 + frame_row, frame_row=frame_row)
    shared = shared._replace(
        frames=shared.frames[: len(captions)],
        bool_masked_pos=torch.stack([torch.arange(PATCHES).roll(number) < 2 for number in range(len(captions))]),
        visual_tokens=shared.visual_tokens[: len(captions)],
        other_frames=torch.randn_like(shared.frames[: len(captions)]),
    )
    assert shared.other_frames is not None
    copies = shared._replace(
        frame_row=torch.arange(pairs),
        frames=shared.frames[frame_row],
        bool_masked_pos=shared.bool_masked_pos[frame_row],
        visual_tokens=shared.visual_tokens[frame_row],
        other_frames=shared.other_frames[frame_row],
    )
    keys = model.compute_keys(copies, [ALL_ROWS])
    model(copies, keys).loss.backward()
    expected = gradients(model)
    for parts in (1,) if negatives == "online" else (1, 2):
        shared_keys = model.compute_keys(shared, micro_batch_slices(pairs, parts))
        torch.testing.assert_close(shared_keys.similarity, keys.similarity)
        for rows in micro_batch_slices(int(keys.keep_mask.sum()), parts):
            model(shared, shared_keys, rows).loss.backward()
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("count", "parts", "lengths"), [(7, 3, [2, 3, 2]), (2, 5, [1, 1]), (1, 1, [1]), (8, 2, [4, 4])]
)
def test_slices_cover_everything_and_none_is_empty(count: int, parts: int, lengths: list[int]) -> None:
    slices = micro_batch_slices(count, parts)
    assert [rows.stop - rows.start for rows in slices] == lengths
    assert [row for rows in slices for row in range(count)[rows]] == list(range(count))


def test_a_learnable_temperature_moves_and_stops_at_its_minimum() -> None:
    model = objective(queue=3, negatives="online")
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "scale": 1.0}], lr=1.0)
    before = float(model.temperature().detach())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cots.training.gradients.autocast", lambda _: torch.autocast("cpu", enabled=False))
        for _ in range(3):
            _, row = train_step(model, optimizer, batch(4), learning_rate=0.3, max_grad_norm=1.0, grad_accum_steps=1)
    assert row["temperature"] != pytest.approx(before)
    model.temperature.log_tau.data.fill_(-9.0)
    assert float(model.temperature().detach()) == pytest.approx(0.01)


def test_unneeded_momentum_encoders_are_not_run_and_the_losses_stay_the_same() -> None:
    model = objective(queue=0, negatives="online", num_std=None)
    reference = copy.deepcopy(model)
    reference.queue = PairQueue(size=3, dim=DIM, warmup_steps=9).double()  # not filled yet
    ran = []
    for slow in (model.image_m, model.text_m):
        slow.module.register_forward_hook(lambda *_: ran.append("momentum"))
    some = batch(5)
    image, text = model.image(some.frames), model.text(some.input_ids, some.attention_mask)
    expected = reference(some, reference.compute_keys(some, [ALL_ROWS]))
    output = model(some, model.compute_keys(some, [ALL_ROWS]))
    assert torch.equal(output.loss, expected.loss)

    def run_step(trained: CotsObjective) -> tuple[KeyFeatures | None, dict[str, float]]:
        groups = [{"params": list(trained.parameters()), "scale": 1.0}]
        return train_step(
            trained, torch.optim.SGD(groups, lr=0.1), some, learning_rate=0.1, max_grad_norm=100.0, grad_accum_steps=1
        )

    (_, slow_row), (keys, row) = run_step(reference), run_step(model)
    assert isinstance(keys, KeyFeatures)
    assert ran == []
    columns = [loss_column(name) for name in output.losses]
    assert {name: row[name] for name in columns} == {name: slow_row[name] for name in columns}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), reference.parameters(), strict=True))
    torch.testing.assert_close(keys.similarity, (image * text).sum(dim=1))
    assert model.noise_filter.mean == pytest.approx(float(keys.similarity.mean()))


class HostSyncs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation that makes the host wait for the device: sizes or values that depend on the data."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype is torch.bool
            for index in (args[1] if isinstance(args[1], list) else [])
        )
        if by_mask or name in ("_local_scalar_dense", "nonzero", "masked_select"):
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "weights",
    [ALL, ALL._replace(masked_views=0.0), LossWeights(1.0, 0.0, 1.0, 0.0), ALL._replace(translation=1.0)],
)
@pytest.mark.parametrize(("negatives", "queue"), [("none", 5), ("momentum", 5), ("online", 0)])
def test_there_is_no_host_device_sync_from_the_first_pass_to_the_last_gradient(
    negatives: InBatchNegatives, queue: int, weights: LossWeights
) -> None:
    model = after_steps(objective(queue=queue, negatives=negatives, weights=weights, fused=True), 2, pairs=6)
    some = translated_batch(7) if weights.translation else batch(7)
    some.attention_mask[::2, 4:] = False
    keys, syncs = model.compute_keys(some, [ALL_ROWS]), HostSyncs()
    with ExitStack() as stack:
        started = vit(model.image).patch_embed.register_forward_pre_hook(lambda *_: stack.enter_context(syncs) and None)
        model(some, keys).loss.backward()
    assert syncs.operations == []
    started.remove()
    with syncs:
        model(some, keys)
    assert syncs.operations  # those before the first pass


@pytest.mark.parametrize("negatives", ["none", "momentum", "online"])
def test_pairs_without_a_class_take_no_part_in_the_losses_by_class(negatives: InBatchNegatives) -> None:
    weights = LossWeights(1.0, 0.0, 0.0, 0.0, class_contrast=1.0, classification=1.0)
    model = objective(queue=5, negatives=negatives, weights=weights, num_std=None)
    some = batch(6)
    few = some.select(slice(4))
    classes = CLASS_OF_IMAGE[some.image_index]
    unknown = some._replace(class_index=classes.masked_fill(torch.arange(6) >= 4, -1))
    nobody = some._replace(class_index=torch.full((6,), -1))
    names = ("class_contrast", "classification")
    losses = [model(b, model.compute_keys(b, [ALL_ROWS])).losses for b in (few, unknown, nobody)]
    for name in names:
        assert float(losses[1][name]) == pytest.approx(float(losses[0][name]), rel=1e-12)
        assert losses[0][name] > 0
        assert losses[2][name] == 0
    model(nobody, model.compute_keys(nobody, [ALL_ROWS])).loss.backward()  # it still has a gradient path


def test_two_encoders_that_agree_perfectly_have_no_task_loss() -> None:
    model = objective(queue=0, negatives="online", weights=LossWeights(0.0, 0.0, 1.0, 0.0))
    some = batch(3)
    feature = F.normalize(torch.randn(3, DIM, dtype=torch.float64))
    keys = KeyFeatures(
        feature, feature, some.image_index, torch.zeros(3), torch.ones(3), torch.ones(3, dtype=torch.bool)
    )
    candidates = select_candidates(keys, torch.arange(3), model.queue, in_batch=True)
    similar = model.compute_logits(feature, feature, CandidateFeatures(feature, feature), candidates)
    torch.testing.assert_close(similar.i2t, similar.t2i)
