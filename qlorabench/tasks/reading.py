"""Reads the configuration and the tokenizer of a saved model, or says what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qlorabench.errors import UserError
from qlorabench.tasks.places import Place


def read_configuration(place: Place) -> Any:
    """Return the ``transformers`` configuration that a model was saved with; raises UserError without one of use."""
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(place.where, **place.options)
    except Exception as error:  # a foreign file may make a library raise anything
        raise UserError(f"backbone '{place.name}': its config.json cannot be read: {first_line(error)}") from error
    if getattr(found, "is_encoder_decoder", False):
        raise UserError(
            f"backbone '{place.name}' is an encoder-decoder ({found.model_type}); adapters are trained on encoders and "
            "on causal language models here."
        )
    return found


def read_tokenizer(place: Place) -> Any:
    """Return the tokenizer of a model; raises UserError where its files are missing, broken or without words."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place.where, **place.options)
    except Exception as error:  # a foreign file may make a library raise anything
        raise UserError(f"backbone '{place.name}': its tokenizer cannot be read: {first_line(error)}") from error
    # without files the library makes a tokenizer that knows special tokens alone
    if place.folder:
        _check_files(place.name, place.folder, tokenizer)
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if len(words) < 2:
        raise UserError(
            f"backbone '{place.name}': its tokenizer ({type(tokenizer).__name__}) knows no words, only special tokens: "
            f"every text would look the same. {_MEND}"
        )
    return tokenizer


_MEND = "Save the model's own tokenizer beside it (`tokenizer.save_pretrained`)."


def _check_files(name: str, folder: Path, tokenizer: Any) -> None:
    """Raise UserError where a folder lacks the files that the tokenizer's class is read from."""
    files = tokenizer.vocab_files_names
    if not files or (folder / "tokenizer.json").is_file():
        return
    present = {key for key, file in files.items() if (folder / file).is_file()}
    lacking = {"merges_file"} & set(files) - present
    if not present or lacking:
        missing = [file for key, file in sorted(files.items()) if key not in present]
        raise UserError(
            f"backbone '{name}': {folder} has no tokenizer files; {type(tokenizer).__name__} is read from "
            f"{' or '.join(missing)}. {_MEND}"
        )


def check_ids(name: str, tokenizer: Any, vocabulary: int) -> None:
    """Raise UserError where the tokenizer gives ids that the embedding matrix, of ``vocabulary`` rows, lacks."""
    beyond = {token: id for token, id in tokenizer.get_vocab().items() if id >= vocabulary}
    if beyond:
        first = min(beyond, key=lambda token: beyond[token])
        raise UserError(
            f"backbone '{name}': its tokenizer has {len(beyond)} tokens beyond the embedding matrix of {vocabulary} "
            f"rows, such as {first!r} ({beyond[first]}). Either the tokenizer is another model's, or tokens were added "
            "to it: save the model after `resize_token_embeddings(len(tokenizer))`, or take the tokenizer without them."
        )


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
