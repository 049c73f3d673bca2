"""What is known of a backbone from its configuration alone: no weight is read, and no package downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig, Objective
from qlorabench.tasks.places import MINILM, NAMES, SMOLLM2, TOY, TOY_LM, place_of
from qlorabench.tasks.reading import check_ids, first_line, read_configuration, read_tokenizer
from qlorabench.tasks.targets import Layers, match_targets

_PACKAGED: dict[str, tuple[str, dict[str, Any]]] = {
    MINILM: (
        "bert",
        {
            "vocab_size": 30522,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "max_position_embeddings": 512,
        },
    ),
    SMOLLM2: (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
}
"""Sizes of the packaged models, which are pinned, so that they are known before a package is there."""


@dataclass(frozen=True)
class BackboneFacts:
    """Sizes and layers of a backbone."""

    name: str
    positions: int | None
    """Most tokens of a text that it reads, special ones included; ``None`` where nothing bounds them."""
    vocabulary: int
    """Rows of the embedding matrix."""
    dropout: Mapping[str, float]
    """The rates of dropout that its configuration states, by setting."""
    layers: Layers
    """Its modules, by what an adapter can do with them."""

    def match(self, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return which linear layers each of ``lora.targets`` stands for; raises UserError as `match_targets` does."""
        return match_targets(targets, self.layers)


def inspect_backbone(config: BackboneConfig, *, base: Path, objective: Objective = "classification") -> BackboneFacts:
    """Return the facts of a backbone without its weights.

    A hub name is asked for its configuration alone; a package that is not in the cache is not fetched. Raises
    UserError where the backbone cannot be found, does not fit the objective, or ignores ``bits``.
    """
    check_bits(config)
    place = None if config.name in NAMES else place_of(config, base=base)
    model = skeleton(config.name, read_configuration(place) if place else _known_configuration(config.name), objective)
    facts = facts_of(config.name, model, _idle_without_weights(model, objective))
    if place:
        check_ids(config.name, read_tokenizer(place), facts.vocabulary)
    return facts


def check_positions(max_length: int, positions: int | None, *, backbone: str) -> None:
    """Raise UserError where texts of ``max_length`` tokens are longer than the backbone reads."""
    if positions is not None and max_length > positions:
        raise UserError(
            f"data.max_length is {max_length}, but backbone '{backbone}' reads at most {positions} tokens of a text, "
            f"special ones included. Set max_length to {positions} or less."
        )


def check_bits(config: BackboneConfig) -> None:
    """Raise UserError where ``bits`` is asked of a backbone that is made here, in full precision."""
    if config.bits is not None and config.name in (TOY, TOY_LM):
        raise UserError(
            f"backbone.bits is {config.bits}, but '{config.name}' is made in full precision: drop bits, or take "
            f"another backbone, such as {MINILM}."
        )


def skeleton(name: str, config: Any, objective: Objective) -> Any:
    """Return the model that ``config`` describes without weights (on torch's meta device), and without a pooler."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    kind: Any = AutoModel if objective == "classification" else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=False)
            if pooler := without_pooler(type(model)):
                model = kind.from_config(config, trust_remote_code=False, **pooler)
    except Exception as error:  # a configuration of any kind may make a library raise anything
        what = "a text model" if objective == "classification" else "a causal language model"
        raise UserError(f"backbone '{name}' cannot be built as {what}: {first_line(error)}") from error
    return model.eval()


def without_pooler(cls: type) -> dict[str, bool]:
    """Return the argument by which a model class leaves its pooler out, or nothing where it has no such argument.

    Nothing here is computed from a pooler: it would be hashed, and perhaps adapted and sent, for no use; and
    checkpoints of masked language models have none, so that it would be drawn anew at every load.
    """
    import inspect

    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(cls).parameters else {}


def facts_of(name: str, model: Any, idle: frozenset[str]) -> BackboneFacts:
    """Return the facts of a model, with or without weights; raises UserError where it reads no token ids.

    ``idle`` names the parameters that the output does not depend on, as `idle_parameters` gives them.
    """
    embeddings = model.get_input_embeddings()
    if getattr(embeddings, "weight", None) is None:
        raise UserError(f"backbone '{name}' ({type(model).__name__}) has no embeddings of tokens: it reads no text.")
    vocabulary = int(embeddings.weight.shape[0])
    settings = model.config.get_text_config().to_dict()
    return BackboneFacts(name, positions_of(model), vocabulary, _dropout(settings), layers_of(model, idle))


def positions_of(model: Any) -> int | None:
    """Return the most tokens that a model has positions for, or ``None`` where it has no such bound.

    RoBERTa and its kin count their positions from behind the padding's; that is read off the embedding itself.
    """
    from torch import nn

    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and padding is not None:
            return int(module.num_embeddings - padding - 1)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def layers_of(model: Any, idle: frozenset[str] = frozenset()) -> Layers:
    """Return the modules of ``model`` by what an adapter can do with them; see `facts_of` for ``idle``."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear, others = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            linear.append(name)
        elif name:
            others.append((name, type(module).__name__))
    unreached = frozenset(name for name in linear if f"{name}.weight" in idle)
    return Layers(tuple(linear), unreached, tuple(others))


def _idle_without_weights(model: Any, objective: Objective) -> frozenset[str]:
    """Return the idle parameters of a model without weights; none where it cannot be run like that."""
    from qlorabench.tasks.reach import idle_parameters, probe_of

    try:
        return idle_parameters(model, objective, probe_of(model, positions_of(model)), None)
    except Exception:  # noqa: BLE001 - without weights any architecture may stumble; with them it is run again
        return frozenset()


def _known_configuration(name: str) -> Any:
    """Return the configuration of a backbone that needs no file of the user's."""
    from transformers import AutoConfig

    if name == TOY:
        from qlorabench.tasks.toy import toy_config

        return toy_config()
    if name == TOY_LM:
        from qlorabench.tasks.toy_lm import toy_lm_config

        return toy_lm_config()
    kind, sizes = _PACKAGED[name]
    return AutoConfig.for_model(kind, **sizes)


def _dropout(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the rates of dropout among a configuration's settings, but for those of heads that are not loaded."""
    rates = {}
    for key, value in settings.items():
        if "drop" in key and not key.startswith(("classifier", "summary")) and isinstance(value, int | float):
            rates[key] = float(value)
    return rates
