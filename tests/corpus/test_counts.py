from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from eeve_axolotl.corpus.counts import BLOCK, Counts, TokenCounter, write_counts
from eeve_axolotl.errors import EEVEError
from tests.corpus.conftest import Maker


@pytest.fixture(scope="module")
def counter(tokenizer_directory, base_tokenizer) -> TokenCounter:
    return TokenCounter(tokenizer_directory, len(base_tokenizer))


def rows_of(texts):
    return [
        {"text": text, "row": 2 * i, "group": i % 3, "held_out": i % 5 == 0, "key": 1000 + i}
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    maker = Maker(2)
    return [*(maker.document(lines=1, sentences=1) for _ in range(BLOCK + 100)), "", "no new token"]


@pytest.fixture(scope="module")
def file(texts, counter, tmp_path_factory):
    path = tmp_path_factory.mktemp("counts") / "00000.parquet"
    write_counts(path, counter, rows_of(texts))
    return path


def test_counts_are_those_of_the_tokenizer_itself(file, texts, counter, tokenizer_directory):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    table = pq.read_table(file).to_pylist()
    for i in (0, 1, 7, BLOCK - 1, BLOCK, len(texts) - 2, len(texts) - 1):
        ids = tokenizer(texts[i], add_special_tokens=False)["input_ids"]
        new = Counter(token - counter.base_vocab_size for token in ids if token >= counter.base_vocab_size)
        assert dict(zip(table[i]["ids"], table[i]["counts"], strict=True)) == dict(new)
        assert table[i]["tokens"] == len(ids) and table[i]["new_tokens"] == sum(new.values())
        assert table[i]["bytes"] == len(texts[i].encode()) and table[i]["row"] == 2 * i


def test_new_tokens_of_a_byte_level_tokenizer_are_spelled_as_people_read_them(texts, tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts[:200], trainer)
    tokenizer.add_special_tokens(["<|끝|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pieces = TokenCounter(tmp_path, 300).pieces()
    read = [
        tokenizer.decode([token], skip_special_tokens=False).replace(" ", "▁") for token in range(300, 501)
    ]
    whole = [number for number, text in enumerate(read) if "\ufffd" not in text]
    assert len(whole) > 50 and any(read[number].startswith("▁") for number in whole)
    assert [pieces[number] for number in whole] == [read[number] for number in whole]
    assert pieces[-1] == "<|끝|>"


def test_blocks_together_are_the_whole_corpus(file, texts):
    counts = Counts([file, file], memory=2**20)
    blocks = list(counts.blocks())
    assert len(counts) == 2 * len(texts) and sum(map(len, blocks)) == len(counts)
    assert [block.start for block in blocks][:3] == [0, BLOCK, len(texts)]
    assert counts.group[:4].tolist() == [0, 1, 2, 0] and counts.held_out[:6].tolist() == [1, 0, 0, 0, 0, 1]


def test_totals_are_sums_over_the_chosen_documents(file, counter):
    counts = Counts([file], memory=2**20)
    chosen = np.zeros(len(counts), bool)
    chosen[[3, BLOCK + 5]] = True
    table = pq.read_table(file).to_pylist()
    expected = np.zeros(counter.new_tokens, int)
    for i in (3, BLOCK + 5):
        expected[table[i]["ids"]] += table[i]["counts"]
    assert (counts.total(chosen, counter.new_tokens) == expected).all()


def test_blocks_beyond_the_memory_are_read_again_not_kept(file):
    counts = Counts([file, file], memory=1)
    first = [block.counts.sum() for block in counts.blocks()]
    assert len(counts._kept) == 1
    assert first == [block.counts.sum() for block in counts.blocks()]


def test_a_broken_file_of_counts_is_named(tmp_path):
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(EEVEError, match=r"00000\.parquet is not a finished file of counts"):
        Counts([tmp_path / "00000.parquet"], memory=2**20)


def test_nothing_stands_under_the_files_name_until_it_is_whole(counter, tmp_path):
    def dies():
        yield from rows_of(["하나", "둘"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_counts(tmp_path / "c.parquet", counter, dies())
    assert not (tmp_path / "c.parquet").exists()
