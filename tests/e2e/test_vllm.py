"""vLLM beside transformers: an extended byte-level tokenizer, and tied embeddings with more rows than it has tokens.

test_newcomer.py has a SentencePiece base, through all stages, with two matrices that have as many rows as tokens.
"""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from tests.conftest import tiny_llama
from tests.e2e import vllm
from tests.e2e.test_newcomer import WRITTEN, greedy, loaded
from tests.tokenizer.test_byte_level import KINDS, extend, hangul

pytestmark = pytest.mark.e2e

ROWS = 1152
"""Of the tied matrix; the tokenizer has fewer tokens."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of random weights beside a tokenizer of Llama-3's kind, which has learned Korean tokens."""
    vllm.needed()
    directory = tmp_path_factory.mktemp("byte_level")
    KINDS["llama3"]().save_pretrained(directory / "base")
    extend(directory / "base", hangul(), directory / "model", round_vocab_to=8)
    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    weights = tiny_llama(ROWS, initializer_range=0.2, head_dim=32, tie_word_embeddings=True, **ends)
    weights.save_pretrained(directory / "model")
    return directory / "model"


def test_vllm_reads_and_writes_what_transformers_does(model):
    ours, tokenizer = loaded(model)
    old, last = len(AutoTokenizer.from_pretrained(model.parent / "base")), len(tokenizer)
    assert old < last < ROWS and last % 8 == 0
    new, rest = range(old, last), [*range(old), *range(last, ROWS)]
    korean, english = hangul(5, 36), ["def build(self): return  None", "The base's own tokens,\n3 of them"]
    with vllm.serve(model) as server:
        for prompts, banned, allowed in ((korean, (), ()), (english, (), ()), (korean, rest, new)):
            for prompt in prompts:
                ids = tokenizer(prompt)["input_ids"]
                assert prompts is english or max(ids) >= old  # new tokens too
                written, _ = greedy(ours, ids, banned)
                read, theirs, text = server.continued(prompt, WRITTEN, allowed)
                assert (read, theirs) == (ids, written)
                # vLLM keeps a letter's last bytes until the letter is whole.
                assert text.rstrip("\ufffd") == tokenizer.decode(written).rstrip("\ufffd")
        # What it writes of a row without a token is no text, as in transformers.
        _, without, text = server.continued(korean[0], 4, range(last, ROWS))
        assert min(without) >= last and text == tokenizer.decode(without) == ""
