"""Builds the tiny model folders that the cases name: sound ones, and ones that went wrong. Nothing here is trained.

As a script: ``python make_models.py FOLDER`` (default: ``models``).
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5Model,
)

from qlorabench.seeding import Seed
from qlorabench.tasks.toy import fill, toy_tokenizer
from qlorabench.tasks.toy_lm import toy_lm_tokenizer

WEIGHTS = "model.safetensors"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90868376\n"
ENCODER = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}


def build(out: Path) -> None:
    """Write every model folder below ``out``, each anew."""
    out.mkdir(parents=True, exist_ok=True)
    for maker in (_sound_encoders, _language_models, _damaged_weights, _damaged_tokenizers, _other_kinds):
        maker(out)


def bert_config(**changes: Any) -> BertConfig:
    """Return the configuration of a BERT of 2 layers and width 32 over the words of the toy texts."""
    sizes = {"vocab_size": len(toy_tokenizer()), "hidden_size": 32, "intermediate_size": 32, **ENCODER}
    return BertConfig(**{**sizes, **changes})


def save(model: Any, folder: Path, tokenizer: Any = None) -> Path:
    """Save ``model`` with weights that are the same everywhere, and the tokenizer where one is given."""
    fill(model, seed=Seed(1, ("cases",)), factors={})
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def changed(source: Path, name: str, change: Callable[[Path], object]) -> Path:
    """Return a copy of the folder ``source`` beside it, after ``change`` was called with it."""
    folder = source.with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    change(folder)
    return folder


def rewrite(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Save the weights of ``folder`` under new names; those that are renamed to ``None`` are left out."""
    weights = load_file(folder / WEIGHTS)
    renamed = {rename(name): weight for name, weight in weights.items()}
    kept = {name: weight for name, weight in renamed.items() if name is not None}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


def reconfigure(folder: Path, **changes: Any) -> None:
    """Change settings of the ``config.json`` of ``folder``."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _sound_encoders(out: Path) -> None:
    full = save(BertModel(bert_config()), out / "bert_full", toy_tokenizer())
    save(BertForMaskedLM(bert_config()), out / "bert_mlm", toy_tokenizer())
    odd = bert_config(hidden_size=36, intermediate_size=50, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    save(BertModel(odd), out / "bert_odd_width", toy_tokenizer())
    changed(full, "bert_bin_only", _as_pickle)
    sharded = changed(full, "bert_sharded", lambda folder: (folder / WEIGHTS).unlink())
    BertModel.from_pretrained(full).save_pretrained(sharded, max_shard_size="20KB")
    changed(full, "bert_old_names", lambda folder: rewrite(folder, _old_name))

    # RoBERTa's positions start behind the padding's id, and its checkpoints have no pooler
    sizes = {"vocab_size": len(toy_tokenizer()), "hidden_size": 32, "intermediate_size": 32, "pad_token_id": 1}
    roberta = RobertaForMaskedLM(RobertaConfig(**{**ENCODER, **sizes, "max_position_embeddings": 34}))
    save(roberta, out / "roberta_mlm", toy_tokenizer())

    albert = {**ENCODER, "num_hidden_layers": 3, "embedding_size": 16, "hidden_size": 32, "intermediate_size": 32}
    save(AlbertModel(AlbertConfig(vocab_size=len(toy_tokenizer()), **albert)), out / "albert", toy_tokenizer())


def _language_models(out: Path) -> None:
    words = len(toy_lm_tokenizer())
    special = {"bos_token_id": 2, "eos_token_id": 3, "initializer_range": 0.2}
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=words, **sizes, **rates, **special))
    save(gpt2, out / "gpt2", toy_lm_tokenizer())

    llama = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=words, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0, **llama, **special
    )
    save(LlamaForCausalLM(config), out / "llama_tied", toy_lm_tokenizer())


def _damaged_weights(out: Path) -> None:
    full = out / "bert_full"
    changed(full, "bert_module_prefix", lambda folder: rewrite(folder, lambda name: f"module.{name}"))
    changed(full, "bert_lfs_pointer", lambda folder: (folder / WEIGHTS).write_text(POINTER))
    changed(full, "bert_truncated", lambda folder: _cut(folder / WEIGHTS))
    changed(out / "bert_bin_only", "bert_bin_truncated", lambda folder: _cut(folder / "pytorch_model.bin"))
    changed(full, "bert_lacks_a_weight", lambda folder: rewrite(folder, _without_a_layers_query))
    changed(full, "bert_fewer_layers", lambda folder: reconfigure(folder, num_hidden_layers=1))
    changed(full, "bert_more_layers", lambda folder: reconfigure(folder, num_hidden_layers=3))
    changed(full, "bert_wider", lambda folder: reconfigure(folder, intermediate_size=48))
    changed(full, "bert_nan", _with_a_nan)


def _damaged_tokenizers(out: Path) -> None:
    full = out / "bert_full"
    save(BertModel(bert_config()), out / "bert_no_tokenizer")
    changed(full, "bert_bad_tokenizer", _with_an_unknown_kind_of_tokenizer)
    changed(full, "bert_tokenizer_pointer", lambda folder: (folder / "tokenizer.json").write_text(POINTER))

    more = toy_tokenizer()
    more.add_tokens(["zyzzyva", "quokka"])
    changed(full, "bert_added_tokens", more.save_pretrained)

    bare = Tokenizer(models.WordLevel(toy_tokenizer().get_vocab(), unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    save(
        BertModel(bert_config()), out / "bert_no_pad", PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]")
    )


def _other_kinds(out: Path) -> None:
    """Models that cannot be adapted here: adapters, encoder-decoders, models with code of their own."""
    full = out / "bert_full"
    factors = LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    adapter = get_peft_model(BertModel.from_pretrained(full), factors)
    adapter.peft_config["default"].base_model_name_or_path = str(full)
    folder = out / "bert_adapter"
    shutil.rmtree(folder, ignore_errors=True)
    adapter.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    changed(full, "bert_beside_adapter", lambda copy: shutil.copytree(folder, copy, dirs_exist_ok=True))

    t5 = T5Config(vocab_size=len(toy_tokenizer()), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    T5Model(t5).save_pretrained(out / "t5")
    toy_tokenizer().save_pretrained(out / "t5")
    changed(full, "own_code", _with_code)


def _as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def _old_name(name: str) -> str:
    """Return the name that TensorFlow's checkpoints of BERT had."""
    return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def _without_a_layers_query(name: str) -> str | None:
    return None if name == "encoder.layer.1.attention.self.query.weight" else name


def _cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def _with_a_nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["encoder.layer.0.output.dense.weight"][0, 0] = torch.nan
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _with_an_unknown_kind_of_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    rules = json.loads(file.read_text())
    file.write_text(json.dumps({**rules, "model": {"type": "NewModel", "vocab": {}}}))


def _with_code(folder: Path) -> None:
    (folder / "own.py").write_text("raise SystemExit('code of a model folder was run')\n")
    classes = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    reconfigure(folder, model_type="own", auto_map=classes)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    build(target)
    print(sorted(folder.name for folder in target.iterdir()))
