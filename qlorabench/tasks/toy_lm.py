"""A tiny random causal language model over the words of the toy texts and of canaries.

For tests, tutorials and the development of attacks; its numbers say nothing about real models.
"""

from __future__ import annotations

from typing import Any

from qlorabench.seeding import Seed
from qlorabench.tasks.canaries import FIRST_NAMES, LAST_NAMES, WORDS
from qlorabench.tasks.toy import BAD, GOOD, NOUNS, OTHER, fill

SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]


def toy_lm_tokenizer() -> Any:
    """Return a word-level tokenizer with one token a digit; it adds no special token by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *map(str, range(10)), *GOOD, *BAD, *NOUNS, *OTHER, *WORDS, *FIRST_NAMES, *LAST_NAMES]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    parts = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def toy_lm_config() -> Any:
    """Return the configuration of the toy language model: a Llama of 2 layers and width 96."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(toy_lm_tokenizer()),
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=SPECIAL.index("[BOS]"),
        eos_token_id=SPECIAL.index("[EOS]"),
        pad_token_id=SPECIAL.index("[PAD]"),
    )


def toy_lm_model() -> Any:
    """Return the toy language model with random weights, the same at every call and on every processor."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):  # the library draws weights of its own from the global stream
        model = LlamaForCausalLM(toy_lm_config())
    # words are not drowned in what attention adds to them
    fill(model, seed=Seed(7, ("toy-lm",)), factors={"model.embed_tokens.weight": 2.0, "lm_head.weight": 1.5})
    return model
