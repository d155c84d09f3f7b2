"""Captions made from labels by templates, a small language model and an endpoint; killed runs go on."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from cots.config.params import Params
from cots.data.describing.describe import Described, Templates, clean_captions, describe
from cots.data.describing.endpoint import KEY_VARIABLE, MAX_ANSWER_BYTES, Endpoint
from cots.data.describing.language_model import LanguageModel
from cots.data.descriptions import Answer, read_answers
from cots.errors import BadInput, RunFailed
from tests.conftest import Cots

PROMPTS = ("a photo of a {label}.", "{label}!")
Reply = tuple[int, Mapping[str, str], bytes]


class Recorder(Templates):
    """Templates that remember what they were asked, and fail at one label."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.asked: list[str] = []
        self.fails_at = fails_at

    def __call__(self, label: str, prompt: str) -> Sequence[str]:
        if label == self.fails_at:
            raise RunFailed("no answer")
        self.asked.append(label)
        return super().__call__(label, prompt)


def undated(path: Path) -> list[Answer]:
    return [replace(answer, when="") for answer in read_answers(path)]


def run(path: Path, maker: Any, *labels: str, prompts: Sequence[str] = PROMPTS) -> Described:
    return describe(path, labels, prompts, maker, max_caption_chars=40)


def test_templates_have_the_label_in_its_place_and_a_date(tmp_path: Path) -> None:
    path = tmp_path / "new" / "made.jsonl"
    assert run(path, Templates(), "St. Bernard", "C{label}", prompts=["a {label}. No {x}", "{label}"]) == (4, 0, 0)
    answers = read_answers(path)
    captions = [answer.captions for answer in answers]
    assert captions == [("a St. Bernard. No {x}",), ("St. Bernard",), ("a C{label}. No {x}",), ("C{label}",)]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]{8}\+00:00", answer.when) for answer in answers)
    assert [answer.model for answer in answers] == [None] * 4


def test_a_run_that_failed_or_was_killed_in_a_line_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole", tmp_path / "made"
    run(whole, Templates(), "a", "b", "c")
    with pytest.raises(RunFailed, match="no answer"):
        run(path, Recorder("b"), "a", "b", "c")
    assert undated(path) == undated(whole)[:2]
    content = whole.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        maker = Recorder()
        lines = content[:length].count(b"\n")
        assert run(path, maker, "a", "b", "c") == (6 - lines, lines, 0)
        assert undated(path) == undated(whole)
        assert len(maker.asked) == 6 - lines
    assert run(path, Templates(), "a", "b", "c", "d") == (2, 6, 0)


def test_a_line_written_by_hand_without_an_end_stays(tmp_path: Path) -> None:
    path = tmp_path / "made"
    by_hand = '{"captions": ["a good dog"], "label": "dog", "prompt": "by hand", "when": ""}'
    path.write_text(by_hand)
    assert run(path, Templates(), "dog") == (2, 0, 0)
    assert path.read_text().startswith(by_hand + "\n")
    assert len(read_answers(path)) == 3


@pytest.mark.parametrize(
    "content", [b"hello", b"\x89PNG\n\x1a\nrest", b'{"label": "a"}\n{"image', b"image,caption\na,b"]
)
def test_a_file_that_is_no_list_of_descriptions_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is not a list of descriptions"):
        run(path, Templates(), "dog")
    assert path.read_bytes() == content


def test_answers_become_captions_of_one_line_that_end_with_a_sentence() -> None:
    texts = [
        '  "A dog\nhas fur."',
        "A dog has fur.",
        "A dog has fur. It bar",
        "x. A dog with long fur and",
        "",
        "\ud800",
        "e" * 41,
    ]
    assert clean_captions(texts, max_chars=40) == ("A dog has fur.", "x. A dog with long fur and")
    assert clean_captions(["它有毛。它会叫。它"], max_chars=40) == ("它有毛。它会叫。",)
    assert clean_captions(["One two three. " + "e" * 60, "One two three four five. " + "e" * 60], max_chars=40) == (
        "One two three four five.",
    )


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of 20 words with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language_model")
    words = {word: number for number, word in enumerate(["<s>", "</s>", "?", *"abcdefghijklmnopq"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="?").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=1.0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_language_model_answers_alike_whatever_was_asked_before(language_model: Path, tmp_path: Path) -> None:
    drawn: dict[str, Any] = {"count": 3, "temperature": 1.5, "max_tokens": 8, "seed": 5}
    model = LanguageModel(str(language_model), **drawn)
    answers = {label: model(label, "a {label}") for label in "bcd"}
    assert {label: model(label, "a {label}") for label in "dcb"} == answers
    assert all(len(set(texts)) > 1 for texts in answers.values())
    assert LanguageModel(str(language_model), **drawn | {"seed": 6})("b", "a {label}") != answers["b"]
    assert run(tmp_path / "made", model, "b", "c", prompts=["a {label}"]) == (2, 0, 0)
    [first, _] = read_answers(tmp_path / "made")
    assert (first.model, first.settings) == (str(language_model), drawn)
    assert first.captions == clean_captions(answers["b"], max_chars=40)


def test_the_most_likely_answer_is_that_of_a_loop_over_tokens(language_model: Path) -> None:
    model = LanguageModel(str(language_model), count=1, temperature=0.0, max_tokens=6, seed=0)
    ids = model._tokenizer("a b", return_tensors="pt")["input_ids"]
    expected: list[int] = []
    for _ in range(6):
        with torch.no_grad():
            expected.append(
                int(
                    model._model(torch.cat([ids, torch.tensor([expected], dtype=torch.long)], 1)).logits[0, -1].argmax()
                )
            )
        if expected[-1] == 1:
            break
    assert model("b", "a {label}") == [model._tokenizer.decode(expected, skip_special_tokens=True)]


def test_a_model_that_only_a_pickle_holds_is_refused(language_model: Path, tmp_path: Path) -> None:
    for file in language_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"--model .*cannot load it as a causal language model"):
        LanguageModel(str(tmp_path), count=1, temperature=0.0, max_tokens=6, seed=0)


class Server(ThreadingHTTPServer):
    """Answers each request by a function, and keeps paths, keys and bodies."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body))
        status, headers, content = self.server.reply(body)
        self.send_response(status)
        for name, value in (dict(headers) | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def answer_of(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    """A model that repeats the question, with the seed."""

    def reply(body: dict[str, Any]) -> Reply:
        return 200, {}, answer_of(f"{body['messages'][0]['content']} {body['seed']}.")

    with Server(reply) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def endpoint(url: str, **changed: object) -> Endpoint:
    settings: dict[str, Any] = {
        "count": 2,
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
        "parallel": 3,
        "timeout": 20,
    }
    return Endpoint(url, "small", **settings | changed)


def test_an_endpoint_is_asked_once_for_each_answer_and_its_key_is_not_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    labels = [f"label {number}" for number in range(7)]
    assert run(tmp_path / "made", endpoint(server.url + "/"), *labels, prompts=["a {label}"]) == (7, 0, 0)
    answers = read_answers(tmp_path / "made")
    assert [answer.label for answer in answers] == labels
    assert [answer.captions for answer in answers] == [(f"a {label} 3.", f"a {label} 4.") for label in labels]
    assert "secret" not in (tmp_path / "made").read_text()
    assert {(path, key) for path, key, _ in server.requests} == {("/v1/chat/completions", "Bearer secret")}
    body = {"model": "small", "temperature": 0.5, "max_tokens": 9}
    assert all(body.items() <= sent.items() for _, _, sent in server.requests)
    assert run(tmp_path / "made", endpoint(server.url), *labels, prompts=["a {label}"]) == (0, 7, 0)
    assert len(server.requests) == 14


@pytest.mark.parametrize(
    ("status", "content", "problem", "requests"),
    [
        (503, b"busy\nnow", "status 503: busy now.*it goes on from there", 3),
        (401, b"no key", f"status 401: no key.; check the address, --model and {KEY_VARIABLE}", 1),
        (302, b"", "status 302", 1),
        (200, b"<html>", "answers in another form than /chat/completions has: <html>", 1),
        (200, answer_of("x").replace(b'"x"', b"null"), "answers in another form", 1),
        (200, b"[" * 100_000, "answers in another form", 1),
        (200, b"x" * (MAX_ANSWER_BYTES + 1), "an answer of more than 1048576 bytes", 1),
    ],
)
def test_an_endpoint_that_gives_no_answer_is_named_with_the_reason(
    server: Server, status: int, content: bytes, problem: str, requests: int
) -> None:
    server.reply = lambda _: (status, {"Retry-After": "0", "Location": server.url + "/elsewhere"}, content)
    with pytest.raises(RunFailed, match=problem):
        endpoint(server.url, count=1, attempts=3)("dog", "{label}")
    assert len(server.requests) == requests


def test_answers_without_a_caption_are_counted(server: Server, tmp_path: Path) -> None:
    server.reply = lambda body: (200, {}, answer_of("x" * 41 if "a" in body["messages"][0]["content"] else "b."))
    assert run(tmp_path / "made", endpoint(server.url, count=1), "a", "b", prompts=["{label}"]) == (2, 0, 1)
    assert [answer.captions for answer in read_answers(tmp_path / "made")] == [(), ("b.",)]


def test_a_busy_endpoint_is_asked_again(server: Server) -> None:
    replies: list[Reply] = [
        (429, {"Retry-After": "0"}, b""),
        (429, {"Retry-After": "\u00b2"}, b""),  # a digit, and no number
        (502, {"Retry-After": "0"}, b""),
        (200, {}, answer_of("yes")),
    ]
    server.reply = lambda _: replies[len(server.requests) - 1]
    assert endpoint(server.url, count=1)("dog", "{label}") == ["yes"]


def test_an_endpoint_that_does_not_answer_is_named(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(RunFailed, match=r"127.0.0.1:\d+/v1 gives no answer \(.*refused"):
        endpoint(server.url, attempts=1)("dog", "{label}")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.org/v1", "plain HTTP lets others read"),
        ("http://127.0.0.1.example.org/v1", "plain HTTP"),
        ("https://me:secret@example.org/v1", f"put the key into {KEY_VARIABLE}"),
        ("ftp://example.org", "is no address"),
        ("example.org", "is no address"),
        ("https://example.org/v1?key=secret", "is no address"),
        ("http://[::1/v1", "is no address"),
        ("https://example.org:99999/v1", "is no address"),
        ("https://example..org/v1", "is no address"),
        ("https://example org/v1", "is no address"),
    ],
)
def test_addresses_that_others_could_read_are_refused(url: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        endpoint(url)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(BadInput, match=f"{KEY_VARIABLE} holds characters that no key has"):
        endpoint("https://example.org/v1")


def test_this_machine_and_https_are_addresses() -> None:
    for url in ("http://localhost:1/v1", "http://[::1]:1", "https://example.org/v1/"):
        assert endpoint(url).settings["endpoint"] == url.rstrip("/")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a source of labels."""
    source = tmp_path / "source"
    source.mkdir()
    rows = ["a.jpg,dog,train", "b.jpg,dog,train", "c.jpg,cat,train", "d.jpg,fox,val", "e.jpg,,train"]
    (source / "labels.csv").write_text("\n".join(["image,label,split", *rows]))
    content = Params.load(Path(__file__).parents[2] / "params.yaml").dump_all()
    keys = {"kind": "folder", "path": str(source), "caption_column": None, "label_column": "label"}
    (tmp_path / "params.yaml").write_text(json.dumps(content | {"source": keys}, default=str))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_describes_the_labels_of_training_samples(project: Path, cots: Cots) -> None:
    code, out, err = cots("data", "describe")
    assert code == 0, err
    path = project / "source" / "descriptions" / "made.jsonl"
    assert "2 labels: 2 answers are new" in out
    assert "source.descriptions" in out
    assert [answer.captions for answer in read_answers(path)] == [("a photo of a dog.",), ("a photo of a cat.",)]
    assert "0 answers are new" in cots("data", "describe")[1]
    for arguments, problem in (
        (("--template", "a dog"), "'a dog' has no {label}"),
        (("--prompt", "a {label}"), "--prompt asks a language model"),
        (("--model", "x", "--template", "a {label}"), "--template is no prompt"),
        (("--model", "x", "--count", "2"), "--count: the most likely answer"),
        (("--endpoint", "https://example.org"), "name the model there"),
        (("--max-tokens", "64"), "--max-tokens belongs to --model, which is not given: leave it out"),
        (("--model", "x", "--parallel", "2"), "--parallel belongs to --endpoint, which is not given: leave it out"),
        (("--model", "x", "--temperature", "inf"), "--temperature"),
        (("--model", "x", "--timeout", "inf"), "--timeout"),
    ):
        code, _, err = cots("data", "describe", *arguments)
        assert code == 2
        assert problem in err
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace('"label"', "null"))
    assert "set source.label_column in params.yaml" in cots("data", "describe")[2]
