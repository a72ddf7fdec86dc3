"""Axolotl's own preparation of a corpus: every token arrives, documents end with eos, nothing is truncated."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import yaml

from eeve_axolotl.corpus import build as corpus
from tests.conftest import tiny_llama
from tests.corpus.conftest import make_settings, texts

BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def model(tokenizer_directory, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_llama(33_000, hidden_size=8).save_pretrained(directory)
    return directory


def prepared(directory: Path, model: Path, tokenizer: Path, **keys):
    """Training and evaluation data as `axolotl train` prepares them."""
    from axolotl.cli.config import load_cfg
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.data import prepare_datasets
    from axolotl.utils.tee import close_debug_log

    recipe = {
        "base_model": str(model),
        "tokenizer_config": str(tokenizer),
        "special_tokens": {"pad_token": "</s>"},
        "dataset_prepared_path": str(directory / "prepared"),
        "dataset_num_proc": 1,
        "output_dir": str(directory / "out"),
        "sample_packing": True,
        "eval_sample_packing": False,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "attn_implementation": "sdpa",
        **keys,
    }
    (directory / "recipe.yml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AXOLOTL_TEE_STDOUT", "0")  # taking its tee off again can lock Axolotl 0.19 up
        cfg = load_cfg(str(directory / "recipe.yml"))
    close_debug_log()
    return prepare_datasets(cfg, load_tokenizer(cfg))[:2]


def tokens_of(documents: list[str], tokenizer: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tokenizer)(documents, add_special_tokens=False)["input_ids"]
    return sorted([BOS, *each, EOS] for each in ids)


def test_completion_reads_every_document_whole_and_ends_it_with_eos(
    sources, tokenizer_directory, model, tmp_path
):
    output = corpus.build(make_settings(sources, tokenizer_directory, tmp_path))
    data = {"path": str(output), "type": "completion"}
    train, held_out = prepared(
        tmp_path,
        model,
        tokenizer_directory,
        datasets=[{**data, "split": "train"}],
        test_datasets=[{**data, "split": "held_out"}],
        sequence_len=4096,
    )
    for read, split in ((train, "train"), (held_out, "held_out")):
        expected = tokens_of(texts(output, split), tokenizer_directory)
        assert sorted(read["input_ids"]) == expected and len(expected) > 5
        assert sorted(read["labels"]) == expected  # the loss is over all of it


def test_completion_loses_no_token_of_documents_longer_than_the_context(
    sources, tokenizer_directory, model, tmp_path
):
    """sequence_len 16: Axolotl reads up to 1,024 tokens of a record, in chunks of 16."""
    wanted = {"shards": 2, "sequence_len": 16}
    output = corpus.build(make_settings(sources, tokenizer_directory, tmp_path, write=wanted))
    data = [{"path": str(output), "type": "completion", "split": "train"}]
    train, _ = prepared(tmp_path, model, tokenizer_directory, datasets=data, sequence_len=16)
    expected = tokens_of(texts(output, "train"), tokenizer_directory)
    assert max(map(len, expected)) > 256
    lost = Counter(token for ids in expected for token in ids) - Counter(
        token for ids in train["input_ids"] for token in ids
    )
    # A chunk of one token trains nothing, and Axolotl leaves it out: the eos of a document that just filled its chunks.
    assert lost == Counter({EOS: sum(len(ids) % 16 == 1 for ids in expected)})


def test_streaming_packs_every_document_whole_and_ends_it_with_eos(
    sources, tokenizer_directory, model, tmp_path
):
    wanted = {"shards": 2, "sequence_len": 128, "read_as": "streaming"}
    output = corpus.build(make_settings(sources, tokenizer_directory, tmp_path, write=wanted))
    stream, _ = prepared(
        tmp_path,
        model,
        tokenizer_directory,
        pretraining_dataset=[{"path": str(output), "type": "pretrain", "split": "train"}],
        sequence_len=128,
    )
    read = [token for batch in stream for token in batch["input_ids"].flatten().tolist()]
    ends = [at for at, token in enumerate(read) if token == BOS] + [len(read)]
    documents = [read[start:end] for start, end in itertools.pairwise(ends)]
    # Padding is eos too here: of what follows a document, one belongs to it.
    documents = [ids[: ids.index(EOS) + 1] for ids in documents]
    assert sorted(documents) == tokens_of(texts(output, "train"), tokenizer_directory)


def test_a_corpus_made_again_in_the_same_place_is_not_read_from_a_cache(
    sources, tokenizer_directory, tmp_path
):
    """`datasets` caches what it reads, and must know one corpus from another in a directory of the same name."""
    from datasets import load_dataset

    for seed in (0, 1):
        output = corpus.build(
            make_settings(sources, tokenizer_directory, tmp_path, seed=seed, overwrite=True)
        )
        assert load_dataset(str(output), split="train")["text"] == texts(output, "train")
        assert load_dataset(str(output), split="held_out")["text"] == texts(output, "held_out")
