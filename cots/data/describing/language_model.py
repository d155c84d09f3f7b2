"""A causal language model of transformers, on this machine, that describes labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from cots.data.descriptions import PLACE
from cots.devices import compute_dtype, default_device
from cots.digests import text_digest
from cots.errors import BadInput

UNUSABLE = (AssertionError, ImportError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)


class LanguageModel:
    """Continues a prompt, or answers it where the tokenizer has a chat template.

    Each question has a seed of its own, so that an answer does not depend on what was asked before it.

    Args:
        name: a folder, or a name on the hub; weights as safetensors. No code that comes with it is run.
        count: answers to a prompt.
        temperature: of the draw of tokens; 0: always the most likely one.
        max_tokens: of an answer.
        seed: of the draws.

    Raises:
        BadInput: transformers cannot load it.
    """

    parallel = 1

    def __init__(self, name: str, *, count: int, temperature: float, max_tokens: int, seed: int) -> None:
        self._device = default_device()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, dtype=compute_dtype(self._device)
            )
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"--model {name}: transformers cannot load it as a causal language model: {reason}"
            ) from None
        self._model = model.to(self._device).eval()
        commit = getattr(model.config, "_commit_hash", None)
        self.model: str | None = f"{name}@{commit}" if commit else name
        draw = {"temperature": temperature, "seed": seed} if temperature else {"temperature": 0.0}
        self.settings: Mapping[str, Any] = {"count": count, "max_tokens": max_tokens} | draw

    @torch.inference_mode()
    def __call__(self, label: str, prompt: str) -> Sequence[str]:
        """The answers."""
        settings = self.settings
        tokens = self._tokenize(prompt.replace(PLACE, label))
        draws = settings["temperature"] > 0
        torch.manual_seed(int(text_digest(f"{settings.get('seed')}:{label}:{prompt}")[:15], 16))
        sequences = self._model.generate(
            **tokens,
            do_sample=draws,
            num_return_sequences=settings["count"],
            max_new_tokens=settings["max_tokens"],
            pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            **({"temperature": settings["temperature"], "top_k": 0, "top_p": 1.0} if draws else {}),
        )
        answers: list[str] = self._tokenizer.batch_decode(
            sequences[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers

    def _tokenize(self, text: str) -> Mapping[str, torch.Tensor]:
        """Input ids and attention mask, (1, L)."""
        tokenizer: Any = self._tokenizer
        if tokenizer.chat_template is None:
            return dict(tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(self._device))
        turns = [{"role": "user", "content": text}]
        tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        return dict(tokens.to(self._device))
