"""`cots data describe`: makes captions from the labels of a source, for training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cots.errors import BadInput

if TYPE_CHECKING:
    from cots.data.describing.describe import Maker
    from cots.data.sources.folder import FolderSourceConfig

TEMPLATES = ("a photo of a {label}.",)  # CLIP, arXiv:2103.00020, section 3.1.4
OF_MODEL = ("count", "temperature", "max_tokens", "seed")
OF_ENDPOINT = ("parallel", "timeout")
PROMPTS = ("What does a {label} look like? Answer with one sentence.",)  # after CuPL, arXiv:2209.03320


def describe(
    context: typer.Context,
    template: Annotated[
        list[str] | None,
        typer.Option(help=f"Caption with {{label}} in it; may be repeated. By default '{TEMPLATES[0]}'."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model that describes labels: a folder or a name of the hub, weights as safetensors; with "
            "--endpoint its name there."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a language model in OpenAI's form, such as https://example.org/v1; its key in "
            "COTS_ENDPOINT_KEY.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What the model is asked, with {{label}} in it; may be repeated. By default '{PROMPTS[0]}'."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Answers of the model to each prompt.")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="Of the model's draws; 0: the most likely answer.")
    ] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="Requests to the endpoint at a time.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds that an answer of the endpoint may take.")
    ] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write or to add to; by default source.descriptions, or descriptions/made.jsonl."),
    ] = None,
) -> None:
    """Make captions from the labels of the training samples, by templates or by asking a language model.

    The labels are those in source.label_column of params.yaml. Each answer is added to the file with prompt, model,
    settings and date as soon as it is there; what the file has is not asked again, so that a killed command goes on.
    """
    from cots.cli.files import writing
    from cots.config.stages.prepare import PrepareParams
    from cots.data.describing.describe import describe

    _require_used(context, model=model, endpoint=endpoint)
    prompts = _check_prompts(template, prompt, asks_model=model is not None)
    if count > 1 and not temperature:
        raise BadInput("--count: the most likely answer is the same each time: give a --temperature above 0")
    if endpoint and not model:
        raise BadInput("--endpoint: name the model there with --model")
    params = PrepareParams.load()
    source = _require_labels(params.source)
    path = out or _default_path(source)
    labels = _read_labels(source)
    maker = _make_maker(
        model,
        endpoint,
        parallel=parallel,
        timeout=timeout,
        count=count,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
    )
    with writing(path):
        done = describe(path, labels, prompts, maker, max_caption_chars=params.prepare.max_caption_chars)
    typer.echo(f"{len(labels)} labels: {done.new} answers are new in {path}, {done.before} were there")
    if done.unusable:
        typer.echo(
            f"{done.unusable} of the new answers give no caption (blank, or longer than prepare.max_caption_chars): "
            "ask with another --prompt, or delete their lines to ask the same again"
        )
    if source.descriptions is None or path != source.path / source.descriptions:
        typer.echo(f"to train on them, name the file in params.yaml, relative to {source.path}: source.descriptions")


def _require_used(context: typer.Context, *, model: str | None, endpoint: str | None) -> None:
    """Refuse options of a way to make captions that is not chosen."""
    ways = [("--model", model, OF_MODEL), ("--endpoint", endpoint, OF_ENDPOINT)]
    for way, chosen, names in ways:
        for name in names if chosen is None else ():
            source = context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE":
                raise BadInput(f"--{name.replace('_', '-')} belongs to {way}, which is not given: leave it out")


def _check_prompts(template: list[str] | None, prompt: list[str] | None, *, asks_model: bool) -> list[str]:
    from cots.data.descriptions import PLACE

    if prompt and not asks_model:
        raise BadInput("--prompt asks a language model: name it with --model; a caption itself is a --template")
    if template and asks_model:
        raise BadInput("--template is no prompt: ask the model with --prompt, and use templates by another command")
    prompts = (prompt or list(PROMPTS)) if asks_model else (template or list(TEMPLATES))
    if lacking := [text for text in prompts if PLACE not in text]:
        raise BadInput(f"{lacking[0]!r} has no {PLACE}, which stands for the label")
    return list(dict.fromkeys(prompts))


def _require_labels(source: object) -> "FolderSourceConfig":
    from cots.data.sources.folder import FolderSourceConfig

    if not isinstance(source, FolderSourceConfig) or source.label_column is None:
        raise BadInput("the source has no labels: set source.label_column in params.yaml, for source.kind: folder")
    return source


def _default_path(source: "FolderSourceConfig") -> Path:
    from cots.data.bucket import in_bucket
    from cots.data.descriptions import DESCRIPTIONS

    path = source.path / (source.descriptions or DESCRIPTIONS)
    if in_bucket(path):
        raise BadInput(f"{path} is in a bucket: give a file of this machine with --out, and copy it there afterwards")
    return path


def _read_labels(source: "FolderSourceConfig") -> list[str]:
    """The labels of the training samples, each once."""
    from cots.data.sources.labels import label_of

    samples = source.model_copy(update={"descriptions": None}).read()
    assert source.label_column
    of_samples = (label_of(sample.metadata, source.label_column) for sample in samples if sample.split == "train")
    return [label for label in dict.fromkeys(of_samples) if label]


def _make_maker(
    model: str | None,
    endpoint: str | None,
    *,
    parallel: int,
    timeout: float,
    count: int,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> "Maker":
    from cots.data.describing.describe import Templates
    from cots.data.describing.endpoint import Endpoint

    if model is None:
        return Templates()
    draw = {"count": count, "max_tokens": max_tokens, "seed": seed}
    if endpoint:
        return Endpoint(endpoint, model, temperature=temperature, parallel=parallel, timeout=timeout, **draw)
    from cots.data.describing.language_model import LanguageModel

    return LanguageModel(model, temperature=temperature, **draw)
