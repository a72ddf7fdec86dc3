"""Shared by all tests: where the real text is, the base tokenizer, and models small enough for a CPU."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPORA = Path(os.environ.get("EEVE_CORPORA", ROOT.parent / "shared" / "corpora"))

# Files that `make test-fast` leaves out, as patterns below tests/: they start processes, train, or read megabytes of
# text. `make test` runs everything. A single slow test in a quick file is marked there, `@pytest.mark.slow`.
E2E = ["e2e/test_*.py", "demo/test_greek_demo.py"]
SLOW = [
    *E2E,
    "corpus/test_axolotl.py",
    "corpus/test_build.py",
    "corpus/test_by_words.py",
    "corpus/test_inputs.py",
    "corpus/test_kernels.py",
    "corpus/test_perplexity.py",
    "evaluation/test_inspection.py",
    "faults/test_fuzz.py",
    "frozen_precision/test_loss.py",
    "losses/test_chunked.py",
    "project/test_init.py",
    "rows/test_guarantee.py",
    "rows/test_liger.py",
    "rows/test_rates.py",
    "rows/test_sharding.py",
    "test_calibration.py",
    "test_calibration_fit.py",
    "test_calibration_limits.py",
    "test_docker.py",
    "test_next_axolotl.py",
    "test_preview.py",
    "test_two_processes.py",
    "test_two_processes_qlora.py",
    "test_versions.py",
    "test_wheel.py",
    "tokenizer/test_byte_level.py",
    "tokenizer/test_counting.py",
    "tokenizer/test_curation.py",
    "tokenizer/test_rarity.py",
    "tokenizer/test_real_tokenizers.py",
    "tokenizer/test_reloading.py",
    "tokenizer/test_savings.py",
    "tokenizer/test_select.py",
    "tokenizer/test_sentencepiece.py",
    "tokenizer/test_shown.py",
    "tokenizer/test_watching.py",
    "tokenizer/test_weigh.py",
    "trainer/test_text_batches.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of the slow files, so that no file says it for itself and a new one in e2e/ is marked too."""
    for item in items:
        path = item.path.relative_to(ROOT / "tests").as_posix()
        for mark, patterns in (("e2e", E2E), ("slow", SLOW)):
            if any(fnmatch(path, pattern) for pattern in patterns):
                item.add_marker(mark)


_file: Path | None = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is imported by now is no garbage: the Trainer looks for garbage at every checkpoint, half a second each time."""
    global _file
    if item.path != _file:
        _file = item.path
        gc.collect()  # the rest is, and would stay; what was frozen before costs nothing here
        gc.freeze()


def corpus(name: str) -> Path:
    """The path of a real text, or a skip with the reason."""
    path = CORPORA / name
    if not path.exists():
        pytest.skip(f"needs {name}: set EEVE_CORPORA to the directory that has it")
    return path


@pytest.fixture(scope="session")
def base_tokenizer_directory(tmp_path_factory) -> Path:
    """SOLAR's tokenizer (Mistral-7B's SentencePiece model, which Axolotl's dependency mistral_common carries)."""
    from transformers import AutoTokenizer

    package = Path(importlib.util.find_spec("mistral_common").origin).parent
    directory = tmp_path_factory.mktemp("base_tokenizer")
    shutil.copy(package / "data" / "tokenizer.model.v1", directory / "tokenizer.model")
    (directory / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", '
        '"add_bos_token": true, "add_eos_token": false}'
    )
    AutoTokenizer.from_pretrained(directory).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def base_tokenizer(base_tokenizer_directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_tokenizer_directory)


SMALL = 350
"""Tokens of the small tokenizer: bytes, letters and some words."""


@pytest.fixture(scope="session")
def small_tokenizer_directory(tmp_path_factory) -> Path:
    """A tokenizer of SOLAR's kind with a few hundred tokens: SOLAR's own takes half of a tiny run's time."""
    from benchmarks.small_base import write_tokenizer

    directory = tmp_path_factory.mktemp("small_tokenizer")
    words = "the school is quiet now and what we write here comes from nowhere".split()
    lines = [" ".join(words[number % 13 :] + words[: number % 7]) for number in range(91)]
    write_tokenizer(directory, lines, SMALL)
    return directory


@pytest.fixture(scope="session")
def small_tokenizer(small_tokenizer_directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(small_tokenizer_directory)


def extended(tokenizer, words: list[str]):
    """`tokenizer` with each of `words` appended to its vocabulary and merges, built left to right."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]

    def add(piece: str) -> None:
        vocab.setdefault(piece, len(vocab))

    for word in words:
        left = word[0]
        add(left)
        for character in word[1:]:
            add(character)
            if left + character not in vocab:
                merges.append([left, character])
                add(left + character)
            left += character
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
    )


def tiny_llama(vocab_size: int, hidden_size: int = 32, seed: int = 0, **config):
    """A LlamaForCausalLM of a few thousand parameters beside its embeddings, random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = dict(
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab_size, hidden_size=hidden_size, **{**settings, **config})
    )


@pytest.fixture
def one_thread():
    """Tiny tensors: handing them to a second thread costs more than they do, much more on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
