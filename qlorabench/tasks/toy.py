"""A system so small that the whole chain runs in seconds: a tiny random encoder and made-up opinions.

For tests, tutorials and the development of attacks; its numbers say nothing about real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qlorabench.seeding import Seed
from qlorabench.tasks.dataset import Table

GOOD = ("superb", "moving", "clever", "warm", "funny", "bold", "tender", "vivid", "graceful", "honest")
BAD = ("dull", "clumsy", "empty", "loud", "tired", "bland", "hollow", "messy", "cold", "forced")
_NOUNS = """film plot cast script scene ending music dialogue hero villain story camera pace humor drama idea
    actor actress director sequel opening finale costume set mood tone chorus duet chase romance mystery twist"""
_OTHER = """the a this that its and but with without of in for on very quite rather never always somehow mostly
    feels is was seems looks sounds remains becomes stays turns here there today again maybe still only just"""
NOUNS = tuple(_NOUNS.split())
OTHER = tuple(_OTHER.split())
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def toy_table(rows: int) -> Table:
    """Return ``rows`` short made-up opinions; the label follows the adjectives in 95 % of them."""
    rng = np.random.Generator(np.random.PCG64(7))
    texts, labels = [], []
    for _ in range(rows):
        label = int(rng.integers(2))
        words = [*rng.choice(NOUNS, 2), *rng.choice(GOOD if label else BAD, 2), *rng.choice(OTHER, rng.integers(2, 7))]
        texts.append(" ".join(rng.permutation(words)))
        labels.append(label if rng.random() < 0.95 else 1 - label)
    return Table("toy", tuple(texts), tuple(labels), ("bad", "good"))


def toy_tokenizer() -> Any:
    """Return a word-level tokenizer over the words of the toy texts, with BERT's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *GOOD, *BAD, *NOUNS, *OTHER]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names)


def toy_config() -> Any:
    """Return the configuration of the toy encoder: a BERT of 2 layers and width 96."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(toy_tokenizer()),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
        initializer_range=0.08,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def toy_model() -> Any:
    """Return the toy encoder with random weights, the same at every call and on every processor."""
    import torch
    from transformers import BertModel

    with torch.random.fork_rng(devices=[]):  # the library draws weights of its own from the global stream
        model = BertModel(toy_config(), add_pooling_layer=False)
    # words matter more than their places, as in a trained model
    fill(model, seed=Seed(7, ("toy",)), factors={"embeddings.word_embeddings.weight": 10.0})
    return model


def fill(model: Any, *, seed: Seed, factors: Mapping[str, float]) -> None:
    """Overwrite every parameter: norms one, biases zero, matrices normal at the configuration's ``initializer_range``.

    The draws are numpy's in float64, a stream for each parameter by its name. torch's own differ between processors:
    it draws in vectors as wide as theirs. ``factors`` scales single parameters by name; the embedding of a padding
    token stays at zero, as the library has it.
    """
    import torch

    deviation = model.config.initializer_range
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                values = np.full(tuple(parameter.shape), 0.0 if name.endswith("bias") else 1.0)
            else:
                values = seed.child(name).numpy().normal(0.0, deviation, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values * factors.get(name, 1.0)))
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
