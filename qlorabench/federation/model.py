"""The adapted model: a frozen backbone with peft's LoRA layers, and for classifiers a head on the mean token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qlorabench.errors import UserError
from qlorabench.federation.state import Layout, Role, State, TensorSpec
from qlorabench.seeding import Seed
from qlorabench.suite.schema import HeadConfig, LoraConfig, Objective
from qlorabench.tasks.inspection import layers_of, positions_of
from qlorabench.tasks.reach import output_of, probe_of, reached_by
from qlorabench.tasks.targets import match_targets

_FACTORS: dict[str, Role] = {"lora_A": "A", "lora_B": "B"}


class AdapterModel(nn.Module):
    """A frozen backbone under LoRA adapters. The adapter (with the head) is read and written as a `State`.

    A classifier has one linear head on the mean of the token representations; it is no part of peft here, since
    peft's own task types train a head without being asked. A language model speaks through the backbone's own output
    layer, which stays frozen, and has no head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        lora: LoraConfig,
        *,
        classes: int,
        width: int,
        objective: Objective = "classification",
    ) -> None:
        super().__init__()
        self.objective = objective
        self.encoder = _adapted(backbone, lora, objective)
        self.head = nn.Linear(width, classes) if objective == "classification" else None
        self._slots = _slots(self.encoder)
        if self.head is not None:
            self._slots |= {f"head.{n}": (p, "head") for n, p in self.head.named_parameters()}
        self.layout = Layout(tuple(TensorSpec(name, tuple(p.shape), role) for name, (p, role) in self._slots.items()))
        self.scaling = lora.alpha / lora.rank

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits for token ids and mask of shape (batch, tokens).

        Their shape is (batch, classes), or (batch, tokens, vocabulary) of a language model: those at a place are for
        the token of the next one.
        """
        if self.head is None:
            output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return output.logits  # type: ignore[no-any-return]
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        logits: Tensor = self.head((hidden * mask).sum(1) / mask.sum(1))
        return logits

    def state(self) -> State:
        """Return a copy of the adapter and the head."""
        return {name: p.detach().clone() for name, (p, _) in self._slots.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the tensors named in ``state``; raises KeyError on a name that the model lacks."""
        with torch.no_grad():
            for name, value in state.items():
                self._slots[name][0].copy_(value)

    def train_only(self, layout: Layout) -> list[tuple[TensorSpec, nn.Parameter]]:
        """Let the tensors of ``layout`` alone require gradients, and return them with their parameters."""
        names = set(layout.names)
        for name, (parameter, _) in self._slots.items():
            parameter.requires_grad_(name in names)
        return [(spec, self._slots[spec.name][0]) for spec in layout]

    def unload(self) -> None:
        """Give the backbone back as it was before the adapters."""
        self.encoder.unload()

    def frozen_weights(self) -> dict[str, Tensor]:
        """Return W0 of every adapted module, (d_out, d_in); quantized backbones are dequantized."""

        modules = dict(self.encoder.get_base_model().named_modules())
        return {name: _weight_of(modules[name].base_layer) for name in self.layout.modules()}


def _weight_of(layer: nn.Module) -> Tensor:
    """Return the weight of a linear layer, (d_out, d_in), in float32."""
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    weight: Tensor = dequantize_module_weight(layer).detach().float()
    return weight.T.contiguous() if isinstance(layer, Conv1D) else weight


def initial_state(model: AdapterModel, *, head: HeadConfig, seed: Seed) -> State:
    """Return the public start: A Kaiming-uniform(sqrt 5) as peft's default, B zero, a Gaussian head.

    It depends on ``seed`` alone, not on the state of ``model``.
    """
    state: State = {}
    for spec in model.layout:
        rng = seed.child(spec.name).numpy()
        if spec.role == "A":
            bound = 1.0 / spec.shape[1] ** 0.5
            values = rng.uniform(-bound, bound, spec.shape)
        elif spec.name == "head.weight":
            values = rng.normal(0.0, head.scale / spec.shape[1] ** 0.5, spec.shape)
        else:
            values = rng.uniform(0.0, 0.0, spec.shape)
        state[spec.name] = torch.from_numpy(values).float()
    return state


def _adapted(backbone: nn.Module, lora: LoraConfig, objective: Objective) -> Any:
    """Return ``backbone`` with LoRA layers on what ``lora.targets`` stands for, but for what the loss does not reach.

    Raises UserError, and leaves the backbone as it was, where a target stands for nothing that can be trained.
    """
    layers = layers_of(backbone)
    encoder = _wrapped(backbone, lora, match_targets(lora.targets, layers))
    if idle := _idle_layers(encoder, objective):
        encoder.unload()
        matched = match_targets(lora.targets, replace(layers, unreached=idle))
        encoder = _wrapped(backbone, lora, matched)
    return encoder


def _wrapped(backbone: nn.Module, lora: LoraConfig, matched: Mapping[str, tuple[str, ...]]) -> Any:
    import logging
    import warnings

    # peft imports bitsandbytes, which misses a kernel for 4-bit weights; a backbone that has such imported it before
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = dict.fromkeys(name for found in matched.values() for name in found)
    pattern = "|".join(re.escape(name) for name in names)  # peft reads a list as endings, a string as a whole name
    settings = PeftConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_peft_model(backbone, settings)  # type: ignore[arg-type, unused-ignore]
    except ValueError as error:
        raise UserError(f"lora.targets {list(lora.targets)} cannot be adapted: {error}") from error


def _idle_layers(encoder: Any, objective: Objective) -> frozenset[str]:
    """Return the adapted layers whose factors no output depends on: no step would ever move them.

    B is zero at the start, so that the gradient of A is too; what counts is that B is in the output's graph.
    """
    model = encoder.get_base_model()
    ids = probe_of(model, positions_of(model))
    with torch.enable_grad():
        reached = reached_by(output_of(encoder, objective, ids, torch.ones_like(ids)))
    factors = ((name, p) for name, (p, role) in _slots(encoder).items() if role == "B")
    return frozenset(name.rpartition(".")[0] for name, parameter in factors if id(parameter) not in reached)


def _slots(encoder: Any) -> dict[str, tuple[nn.Parameter, Role]]:
    slots: dict[str, tuple[nn.Parameter, Role]] = {}
    for name, parameter in encoder.get_base_model().named_parameters():
        for infix, role in _FACTORS.items():
            module, found, _ = name.partition(f".{infix}.")
            if found:
                slots[f"{module}.{role}"] = (parameter, role)
    return slots
