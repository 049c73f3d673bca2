"""Frozen public backbones: packaged ones, a local directory, a hub name; optionally in 4 or 8 bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlorabench.hashing import digest
from qlorabench.suite.schema import BackboneConfig, Objective
from qlorabench.tasks.inspection import BackboneFacts, check_bits, facts_of
from qlorabench.tasks.places import MINILM as MINILM
from qlorabench.tasks.places import SMOLLM2 as SMOLLM2
from qlorabench.tasks.places import TOY as TOY
from qlorabench.tasks.places import TOY_LM as TOY_LM
from qlorabench.tasks.places import place_of
from qlorabench.tasks.reading import check_ids, read_configuration, read_tokenizer

_NOT_COMPUTED_WITH = frozenset(
    {"_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version"}
)
"""Settings of a configuration that say where it comes from, or how heads are labelled."""


@dataclass(frozen=True)
class Backbone:
    """A loaded frozen model with its tokenizer and a hash of both."""

    name: str
    model: Any
    """``transformers.PreTrainedModel`` in evaluation mode, nothing requiring a gradient."""
    tokenizer: Any
    sha256: str
    """Hash over all that its output follows from: see `content_hash`."""
    width: int
    """Width of the token representations."""
    facts: BackboneFacts
    """Its sizes, and its layers by what an adapter can do with them."""


def load_backbone(config: BackboneConfig, *, base: Path, objective: Objective = "classification") -> Backbone:
    """Load model and tokenizer; raises UserError where they cannot be had, or do not fit each other or the objective.

    ``base`` is the folder against which a relative directory is resolved. For language modeling the model comes with
    its output layer, and must be causal. For classification it comes without a pooler, where it has one.
    """
    from qlorabench.tasks.weights import check_fit, idle_of, read_weights, sound_output

    check_bits(config)
    if config.name in (TOY, TOY_LM):
        model, info = _toy(config.name, objective), None
        tokenizer = load_tokenizer(config, base=base)
    else:
        place = place_of(config, base=base)
        settings = read_configuration(place)
        tokenizer = read_tokenizer(place)
        model, info = read_weights(place, config, settings, objective)
    output = sound_output(config.name, model, objective)
    width = output.shape[-1] if objective == "classification" else model.config.hidden_size
    idle = idle_of(model, objective)
    if info:
        check_fit(config.name, model, info, idle)
    facts = facts_of(config.name, model, idle)
    check_ids(config.name, tokenizer, facts.vocabulary)
    return Backbone(config.name, model, tokenizer, content_hash(model, tokenizer, idle), int(width), facts)


def load_tokenizer(config: BackboneConfig, *, base: Path) -> Any:
    """Return the tokenizer of a backbone alone; raises UserError where it cannot be had."""
    if config.name == TOY:
        from qlorabench.tasks.toy import toy_tokenizer

        return toy_tokenizer()
    if config.name == TOY_LM:
        from qlorabench.tasks.toy_lm import toy_lm_tokenizer

        return toy_lm_tokenizer()
    return read_tokenizer(place_of(config, base=base))


def _toy(name: str, objective: Objective) -> Any:
    if name == TOY:
        from qlorabench.tasks.toy import toy_model

        model = toy_model()
    else:
        from qlorabench.tasks.toy_lm import toy_lm_model

        model = toy_lm_model()
        model = model if objective == "language-modeling" else model.model
    return model.eval().requires_grad_(False)


def content_hash(model: Any, tokenizer: Any, idle: frozenset[str]) -> str:
    """Return a hash over all that a text's output follows from, 64 hex digits.

    That is names, shapes and bytes of the weights but for the ``idle`` ones, the configuration (the number of heads is
    in no weight), and the tokenizer.
    """
    settings = json.loads(model.config.to_json_string(use_diff=False))
    kept = {key: value for key, value in settings.items() if key not in _NOT_COMPUTED_WITH}
    parts = [_weights(model, idle), json.dumps(kept, sort_keys=True), _tokenizer(tokenizer)]
    return digest(parts, length=64)


def _weights(model: Any, idle: frozenset[str]) -> dict[str, list[Any]]:
    """Return shape and hash of every weight by name, as loaded."""
    import hashlib

    import torch

    parts: dict[str, list[Any]] = {}
    for name, tensor in sorted(model.state_dict().items()):
        if name not in idle and isinstance(tensor, torch.Tensor):
            data = tensor.detach().cpu().contiguous().flatten().view(dtype=torch.uint8).numpy()
            parts[name] = [list(tensor.shape), hashlib.sha256(data.tobytes()).hexdigest()]
    return parts


def _tokenizer(tokenizer: Any) -> list[Any]:
    """Return what tokens follow from; the state that earlier calls left (cuts, padding) is none of it."""
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    if not tokenizer.is_fast:
        return [type(tokenizer).__name__, special, sorted(tokenizer.get_vocab().items())]
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return [special, {key: value for key, value in rules.items() if key not in ("truncation", "padding")}]
