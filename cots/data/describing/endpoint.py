"""A language model behind an endpoint in OpenAI's form, such as vLLM, llama.cpp and Ollama have."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from cots.data.descriptions import PLACE
from cots.errors import BadInput, RunFailed
from cots.loopback import is_loopback

KEY_VARIABLE = "COTS_ENDPOINT_KEY"  # never written anywhere
MAX_ANSWER_BYTES = 1 << 20
MAX_WAIT = 60.0  # seconds before a further attempt, whatever the endpoint asks for
BUSY = (408, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed


class Endpoint:
    """Answers of `URL/chat/completions`.

    The key in the environment variable `COTS_ENDPOINT_KEY`, if there is one, goes to that address alone: redirects are
    not followed.

    Args:
        url: such as `https://example.org/v1`; plain HTTP only to this machine.
        model: its name there.
        count: answers to a prompt, by a request each.
        temperature: of the draw of tokens.
        max_tokens: of an answer.
        seed: of the first answer; the next ones have the following seeds.
        parallel: requests at a time.
        timeout: seconds that an answer may take.
        attempts: at a request that fails, at least 1.

    Raises:
        BadInput: the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        count: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        parallel: int,
        timeout: float,
        attempts: int = 5,
    ) -> None:
        is_local = _check_address(url)
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise BadInput(f"{KEY_VARIABLE} holds characters that no key has: copy the key again")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url, self._timeout, self._attempts = url.rstrip("/"), timeout, attempts
        self._http = httpx.Client(headers=headers, timeout=timeout, trust_env=not is_local)
        self.model: str | None = model
        self.parallel = parallel
        self.settings: Mapping[str, Any] = {
            "count": count,
            "endpoint": self._url,
            "max_tokens": max_tokens,
            "seed": seed,
            "temperature": temperature,
        }

    def __call__(self, label: str, prompt: str) -> Sequence[str]:
        """The answers.

        Raises:
            RunFailed: it does not answer, refuses, or answers in another form.
        """
        turns = [{"role": "user", "content": prompt.replace(PLACE, label)}]
        body = {"model": self.model, "messages": turns, **_select(self.settings, "temperature", "max_tokens")}
        seeds = range(self.settings["seed"], self.settings["seed"] + self.settings["count"])
        return [self._ask(body | {"seed": seed}) for seed in seeds]

    def _ask(self, body: Mapping[str, Any]) -> str:
        for attempt in range(1, self._attempts + 1):
            status, content, wait = self._post(body)
            if status == httpx.codes.OK:
                return _parse(content, self._url)
            if attempt == self._attempts or (status is not None and status not in BUSY):
                break
            time.sleep(min(2.0 ** (attempt - 1) if wait is None else wait, MAX_WAIT))
        reason = content.decode(errors="replace") if status is None else f"status {status}: {_excerpt(content)}"
        advice = "repeat the command later"
        if status is not None and status not in BUSY:
            advice = f"check the address, --model and {KEY_VARIABLE}, and repeat the command"
        raise RunFailed(f"{self._url} gives no answer ({reason}); {advice}, it goes on from there")

    def _post(self, body: Mapping[str, Any]) -> tuple[int | None, bytes, float | None]:
        """Status and content of the answer, and the seconds that it asks to wait; no status, and why, without one."""
        end = time.monotonic() + self._timeout
        content = b""
        try:
            with self._http.stream("POST", f"{self._url}/chat/completions", json=body) as answer:
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        raise RunFailed(f"{self._url}: an answer of more than {MAX_ANSWER_BYTES} bytes: is it a model?")
                    if time.monotonic() > end:
                        return None, f"none within {self._timeout:g} s".encode(), None
                wait = answer.headers.get("Retry-After", "")
                return answer.status_code, content, float(wait) if wait.isdecimal() else None
        except httpx.HTTPError as error:
            return None, (str(error) or type(error).__name__).encode(), None


def _check_address(url: str) -> bool:
    """Whether an address is on this machine.

    Raises:
        BadInput: it is no address, carries a password, or others could read and change what is sent.
    """
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        has_usable_port = parts.port != 0
    except (ValueError, httpx.InvalidURL):
        raise BadInput(f"--endpoint {url!r:.200} is no address such as https://example.org/v1") from None
    if (
        not has_usable_port
        or " " in url
        or parts.scheme not in ("http", "https")
        or not host
        or parts.query
        or parts.fragment
    ):
        raise BadInput(f"--endpoint {url!r} is no address such as https://example.org/v1")
    if parts.username is not None:
        raise BadInput(f"--endpoint: write no password into the address, put the key into {KEY_VARIABLE}")
    is_local = is_loopback(host)
    if parts.scheme == "http" and not is_local:
        raise BadInput(
            f"--endpoint {url}: plain HTTP lets others read the key and change the captions: use https, or a tunnel to "
            "this machine"
        )
    return is_local


def _parse(content: bytes, url: str) -> str:
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise RunFailed(f"{url} answers in another form than /chat/completions has: {_excerpt(content)}")
    return text


def _excerpt(content: bytes) -> str:
    return " ".join(content.decode(errors="replace").split())[:200]


def _select(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: settings[name] for name in names}
