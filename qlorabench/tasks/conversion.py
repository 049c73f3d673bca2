"""Models in GGUF files, turned once into what transformers reads quickly, and held against their SHA-256 ever after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qlorabench.hashing import digest, file_sha256
from qlorabench.tasks.cache import cache_root, is_whole, publish, record, workspace
from qlorabench.tasks.packages import SMOLLM2_PACKAGE, PackagedFile

RECIPE = 1
"""Raised when a conversion comes out otherwise, so that an old one is not taken for it."""


def dequantize(file: Path, folder: Path) -> None:
    """Write the model in the GGUF ``file`` to ``folder`` as float32 safetensors, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **options)
    model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), **options, dtype=torch.float32)
    del model.hf_quantizer, model.config.quantization_config  # else it refuses to be saved as what it is by now
    model.is_quantized = False
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


@dataclass(frozen=True)
class ConvertedModel:
    """A packaged model in another form, made where it is missing."""

    source: PackagedFile
    convert: Callable[[Path, Path], None]
    """Called with the packaged file and the folder to fill."""

    @property
    def folder(self) -> Path:
        """Folder of the cache that holds the converted model; it need not exist yet."""
        source = digest([asdict(self.source), RECIPE])
        return cache_root() / "converted" / f"{self.source.package}-{self.source.version}-{source}"

    def fetch(self) -> Path:
        """Return the folder of the converted model; fetch and convert it where it is missing or damaged."""
        if not is_whole(self.folder):
            file = self.source.fetch()
            with workspace(self.folder.parent) as work:
                made = work / "files"
                made.mkdir()
                self.convert(file, made)
                record(made, {p.relative_to(made).as_posix(): file_sha256(p) for p in made.rglob("*") if p.is_file()})
                publish(made, self.folder)
        return self.folder


SMOLLM2_MODEL = ConvertedModel(SMOLLM2_PACKAGE, dequantize)
"""SmolLM2-135M-Instruct; its weights are the dequantized Q4_1 ones, not the published bfloat16 ones."""
