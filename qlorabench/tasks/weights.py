"""Reads the weights of a saved model, and refuses what does not fit it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qlorabench.errors import UserError
from qlorabench.suite.schema import BackboneConfig, Objective
from qlorabench.tasks.inspection import positions_of, skeleton, without_pooler
from qlorabench.tasks.places import SMOLLM2, Place
from qlorabench.tasks.reach import idle_parameters, output_of, probe_of
from qlorabench.tasks.reading import first_line

_SHOWN = 4
"""Most weights that a message names."""
_BLOCK = 64
"""Values in a block of bitsandbytes' 4-bit weights, which share a scale."""
_PADDING = 3
"""Tokens of padding behind a text when its influence is looked at."""


def read_weights(
    place: Place, config: BackboneConfig, settings: Any, objective: Objective
) -> tuple[Any, dict[str, Any]]:
    """Return the model, and what transformers says of how its weights fit, for `check_fit`.

    ``settings`` is the model's ``transformers`` configuration. Raises UserError where the files cannot be read, or
    ``bits`` cannot be had.
    """
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    kind: Any = AutoModel if objective == "classification" else AutoModelForCausalLM
    pooler = without_pooler(type(skeleton(place.name, settings, objective)))
    quantization = _quantization(config, settings)
    try:
        model, info = kind.from_pretrained(
            place.where,
            config=settings,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, all of them, by name
            **place.options,
            **pooler,
            **quantization,
        )
    except Exception as error:  # a foreign file may make a library raise anything
        raise UserError(
            f"backbone '{place.name}': its weights cannot be read: {first_line(error)}. The file may be damaged or cut "
            "off: copy or download it anew."
        ) from error
    model.eval().requires_grad_(False)
    if config.bits is not None:
        _settle(place.name, config.bits, model)
    return model, info


def idle_of(model: Any, objective: Objective) -> frozenset[str]:
    """Return the names of the parameters that the output does not depend on."""
    import torch

    ids = probe_of(model, positions_of(model))
    return idle_parameters(model, objective, ids, torch.ones_like(ids))


def _quantization(config: BackboneConfig, settings: Any) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    if config.bits is None:
        return {"dtype": torch.float32}
    if getattr(settings, "quantization_config", None):
        raise UserError(
            f"backbone.bits is {config.bits}, but the weights of '{config.name}' are quantized already, and are read "
            "as they are: drop bits, or name the model in full precision."
        )
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    eight = BitsAndBytesConfig(load_in_8bit=True)
    return {"dtype": torch.float32, "quantization_config": four if config.bits == 4 else eight}


def _settle(name: str, bits: int, model: Any) -> None:
    """Raise UserError where nothing was quantized or could not be read back; keep every layer's weights in one form.

    On processors with bfloat16 in AVX-512, a 4-bit layer packs its weights at the first pass without a gradient, for
    a product that autograd does not know: layers below it would no longer train in a process that has measured.
    """
    quantized = [module for module in model.modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")]
    if not quantized:
        raise UserError(f"backbone.bits is {bits}, but '{name}' has no layer that bitsandbytes quantizes: drop bits.")
    odd = sorted({layer.in_features for layer in quantized if bits == 4 and layer.in_features % _BLOCK})
    if odd:
        raise UserError(
            f"backbone.bits is 4, but '{name}' has linear layers with {odd[0]} inputs. bitsandbytes reads 4-bit "
            f"weights wrongly where a row is no multiple of its block of {_BLOCK} values: set bits to 8, or drop it."
        )
    for layer in quantized:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def check_fit(name: str, model: Any, info: dict[str, Any], idle: frozenset[str]) -> None:
    """Raise UserError where a weight is not in the files or has another shape there, or one has no place in the model.

    The ``idle`` ones, which the output does not depend on, may be missing.
    """
    missing = [key for key in sorted(info["missing_keys"]) if key not in idle]
    if missing and set(missing) <= _output_layer(model):
        raise UserError(
            f"backbone '{name}' is no causal language model: {missing[0]} is not in its weights. 'objective: "
            f"language-modeling' needs one that predicts the next token, such as {SMOLLM2}."
        )
    unused = _without_place(info["unexpected_keys"], model)
    shapes = [
        f"{key} ({tuple(saved)} in the file, {tuple(own)} in the model)"
        for key, saved, own in sorted(info["mismatched_keys"])
        if key not in idle
    ]
    said = [
        f"{len(found)} {what}: {_some(found)}"
        for what, found in (
            ("are not in the file and would be random", missing),
            ("have another shape", shapes),
            ("have no place in the model that config.json describes", unused),
        )
        if found
    ]
    if said:
        hint = _prefix_hint(missing, info["unexpected_keys"])
        raise UserError(
            f"backbone '{name}': its weights do not fit the model ({type(model).__name__}).\n  "
            + "\n  ".join(said)
            + f"\n{hint or 'Save model and configuration together with `save_pretrained`.'}"
        )
    if problems := info.get("error_msgs"):
        raise UserError(f"backbone '{name}': its weights cannot be read: {_some(problems)}")


def _output_layer(model: Any) -> set[str]:
    """Return the names of the weights of the layer that predicts tokens; none where the model has no such layer."""
    layer = model.get_output_embeddings()
    if layer is None:
        return set()
    own = {id(parameter) for parameter in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _without_place(unexpected: Iterable[str], model: Any) -> list[str]:
    """Return the weights of a file that belong into the model and were left out.

    Heads that are not loaded, poolers, and tables that the model computes for itself are none of these.
    """
    prefix = f"{model.base_model_prefix}."
    parts = {name for name, _ in model.base_model.named_children()}
    modules = {name for name, _ in model.named_modules()}
    tables = {name.removeprefix(prefix) for name, _ in model.named_buffers()}
    found = []
    for key in sorted(unexpected):
        inside = key.removeprefix(prefix)
        of_a_module = key.rpartition(".")[0] in modules
        if inside not in tables and (of_a_module or inside.partition(".")[0] in parts):
            found.append(key)
    return found


def _prefix_hint(missing: list[str], unexpected: Iterable[str]) -> str:
    """Return how to mend names that all begin with the same words, or an empty string where they do not."""
    saved = set(unexpected)
    for key in saved:
        prefix, found, _ = key.partition(missing[0]) if missing else ("", "", "")
        if found and prefix and all(prefix + name in saved for name in missing):
            return f"In the file every name begins with '{prefix}': save the weights without it."
    return ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def sound_output(name: str, model: Any, objective: Objective) -> Any:
    """Return what a model computes from a short text, (1, tokens, width or vocabulary).

    Raises UserError where it reads no text, answers with no numbers, or looks at masked padding; and where a language
    model is not causal, so that what it says at one place depends on the tokens behind it.
    """
    import torch

    ids = probe_of(model, positions_of(model))
    mask = torch.ones_like(ids)
    try:
        with torch.inference_mode():
            output = output_of(model, objective, ids, mask).float()
            mask[:, -_PADDING:] = 0
            padded = output_of(model, objective, ids, mask)[:, :-_PADDING].float()
            alone = output_of(model, objective, ids[:, :-_PADDING], mask[:, :-_PADDING]).float()
    except Exception as error:  # any architecture may stumble in any way
        raise UserError(
            f"backbone '{name}' ({type(model).__name__}) does not read token ids under a mask as encoders and causal "
            f"language models do: {first_line(error)}"
        ) from error
    if not torch.isfinite(output).all():
        raise UserError(
            f"backbone '{name}': what it computes from a short text is not finite: its weights are damaged."
        )
    if objective == "language-modeling" and not _alike(output[:, :-_PADDING], alone):
        raise UserError(
            f"backbone '{name}' is no causal language model: its answer at one place depends on the tokens behind it. "
            f"'objective: language-modeling' needs one that predicts the next token, such as {SMOLLM2}."
        )
    if not _alike(padded, alone):
        raise UserError(
            f"backbone '{name}' ({type(model).__name__}) looks at the padding behind a text although it is masked: "
            "what a text gives would depend on the others of its batch."
        )
    return output


def _alike(first: Any, second: Any) -> bool:
    """Tell whether two outputs are equal but for rounding: within a hundredth of their spread."""
    return bool((first - second).abs().max() <= 1e-2 * second.std() + 1e-6)
