"""Frozen public backbones: the packaged MiniLM, a local directory, a hub name; optionally in 4 or 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError
from qlorabench.hashing import digest
from qlorabench.suite.schema import BackboneConfig

MINILM = "minilm-l6"
TOY = "toy"


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


def load_backbone(config: BackboneConfig, *, base: Path) -> Backbone:
    """Load model and tokenizer; raises UserError where they cannot be had.

    ``base`` is the folder against which a relative directory is resolved.
    """
    if config.name == TOY:
        return _toy()
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    where, options = _location(config, base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model = AutoModel.from_pretrained(where, **options, **_quantization(config))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"backbone '{config.name}' cannot be loaded: {str(error).splitlines()[0]} "
            f"It may be '{MINILM}', a directory with a saved model, or a hub name (which needs the network)."
        ) from error
    model.eval().requires_grad_(False)
    return Backbone(config.name, model, tokenizer, _weights_hash(model))


def _toy() -> Backbone:
    from qlorabench.tasks.toy import toy_model, toy_tokenizer

    model = toy_model().eval().requires_grad_(False)
    return Backbone(TOY, model, toy_tokenizer(), _weights_hash(model))


def _location(config: BackboneConfig, base: Path) -> tuple[str, dict[str, Any]]:
    from qlorabench.tasks.packages import MINILM_PACKAGE

    if config.name == MINILM:
        return str(MINILM_PACKAGE.fetch()), {"local_files_only": True}
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
