"""Builds the tiny model folders that the cases name, in the folder given (default: models). Nothing here is trained."""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
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
)

from qlorabench.tasks.toy import toy_tokenizer
from qlorabench.tasks.toy_lm import toy_lm_tokenizer

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
OUT.mkdir(parents=True, exist_ok=True)


def fresh(name):
    f = OUT / name
    shutil.rmtree(f, ignore_errors=True)
    f.mkdir()
    return f


torch.manual_seed(1)


def cfg(**k):
    return BertConfig(
        vocab_size=len(toy_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
        **k,
    )


f = fresh("bert_mlm")
BertForMaskedLM(cfg()).save_pretrained(f)
toy_tokenizer().save_pretrained(f)
f = fresh("bert_full")
BertModel(cfg()).save_pretrained(f)
toy_tokenizer().save_pretrained(f)
full = f
f = fresh("bert_module_prefix")
shutil.copytree(full, f, dirs_exist_ok=True)
w = load_file(f / "model.safetensors")
save_file({f"module.{k}": v for k, v in w.items()}, f / "model.safetensors", metadata={"format": "pt"})
f = fresh("bert_lfs_pointer")
shutil.copytree(full, f, dirs_exist_ok=True)
(f / "model.safetensors").write_text(
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 90868376\n"
)
f = fresh("bert_truncated")
shutil.copytree(full, f, dirs_exist_ok=True)
b = (f / "model.safetensors").read_bytes()
(f / "model.safetensors").write_bytes(b[: len(b) // 2])
f = fresh("bert_bad_tokenizer")
shutil.copytree(full, f, dirs_exist_ok=True)
t = json.loads((f / "tokenizer.json").read_text())
t["model"] = {"type": "NewModel", "vocab": {}}
(f / "tokenizer.json").write_text(json.dumps(t))
f = fresh("bert_no_tokenizer")
BertModel(cfg()).save_pretrained(f)
f = fresh("bert_bin_only")
shutil.copytree(full, f, dirs_exist_ok=True)
torch.save(load_file(f / "model.safetensors"), f / "pytorch_model.bin")
(f / "model.safetensors").unlink()
f = fresh("bert_sharded")
BertModel.from_pretrained(full).save_pretrained(f, max_shard_size="20KB")
toy_tokenizer().save_pretrained(f)
f = fresh("bert_no_pad")
BertModel(cfg()).save_pretrained(f)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

vocab = toy_tokenizer().get_vocab()
tk = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
tk.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tk, unk_token="[UNK]").save_pretrained(f)
f = fresh("bert_added_tokens")
shutil.copytree(full, f, dirs_exist_ok=True)
k = toy_tokenizer()
k.add_tokens(["zyzzyva", "quokka"])
k.save_pretrained(f)
f = fresh("bert_odd_width")
BertModel(
    BertConfig(
        vocab_size=len(toy_tokenizer()),
        hidden_size=36,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=50,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
).save_pretrained(f)
toy_tokenizer().save_pretrained(f)
f = fresh("gpt2")
GPT2LMHeadModel(
    GPT2Config(
        vocab_size=len(toy_lm_tokenizer()),
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        initializer_range=0.2,
        bos_token_id=2,
        eos_token_id=3,
    )
).save_pretrained(f)
toy_lm_tokenizer().save_pretrained(f)
f = fresh("llama_tied")
LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(toy_lm_tokenizer()),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
).save_pretrained(f)
toy_lm_tokenizer().save_pretrained(f)
f = fresh("albert")
AlbertModel(
    AlbertConfig(
        vocab_size=len(toy_tokenizer()),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
).save_pretrained(f)
toy_tokenizer().save_pretrained(f)
from peft import LoraConfig, get_peft_model

f = fresh("bert_adapter")
m = get_peft_model(
    BertModel.from_pretrained(full), LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
)
m.peft_config["default"].base_model_name_or_path = str(full)
m.save_pretrained(f)
toy_tokenizer().save_pretrained(f)
print(sorted(p.name for p in OUT.iterdir()))
