"""Leave one source out: what tokenizers built from the other sources make of its text (for tokenizer_methods.py --json).

`ours` is `axolotl eeve tokenizer` with a corpus entry for each source, words weighed by domain. `rival` is a page of code: a
SentencePiece BPE model of 40,000 pieces, with SentencePiece's default settings, trained on 150,000 lines that are drawn from
the same documents; all its single Hangul letters, then its other Hangul pieces in the order of their merges, until both have
as many new tokens; appended to the base with their merges.

A ratio is the tokens of the source that was left out under the extended tokenizer, divided by those under the base: lower is
better. `mean` is the mean of the ratios, each source alike.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.words import word_splitter
from eeve_axolotl.vocabulary import id_count

LINES, PIECES = 150_000, 40_000
_MOST_BYTES = 4_192  # longer lines are left out: SentencePiece's default


def by_source(file: Path) -> dict[str, list[str]]:
    """The documents of a corpus of JSON lines, by their source."""
    found: dict[str, list[str]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            found.setdefault(document["source"], []).append(document["text"])
    return found


def ours(base: str, sources: dict[str, list[str]], new_tokens: int, keys: dict, work: Path) -> Tokenizer:
    """What the product builds from `sources`.

    Args:
        keys: further keys of the tokenizer YAML.
        work: an empty directory.
    """
    corpus = []
    for source, texts in sources.items():
        file = work / f"{source}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        corpus.append(Source(path=str(file)))
    output = work / "ours"
    build(TokenizerSettings(base=base, output=str(output), corpus=corpus, new_tokens=new_tokens, **keys))
    return Tokenizer.from_file(str(output / "tokenizer.json"))


def rival(base: str, sources: dict[str, list[str]], new_tokens: int, _keys: dict, _work: Path) -> Tokenizer:
    """SentencePiece's letters and pieces, appended to the base."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    lines = [
        line for texts in sources.values() for text in texts for line in text.splitlines() if line.strip()
    ]
    drawn = random.Random(0).sample(lines, min(LINES, len(lines)))
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(drawn),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        max_sentence_length=_MOST_BYTES,
        hard_vocab_limit=False,  # a small corpus has fewer pieces
        num_threads=1,
        minloglevel=2,
    )
    learned = SentencePieceProcessor(model_proto=model.getvalue())
    tokenizer = bases.load(base)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    splitter = word_splitter(state, ["Hangul"])
    pieces = [learned.id_to_piece(n) for n in range(learned.get_piece_size())]
    korean = [piece for piece in pieces if splitter.is_span(piece) and piece not in state["model"]["vocab"]]
    ordered = sorted(korean, key=lambda piece: len(piece) > 1)  # stable: the letters, then the merges
    return Tokenizer.from_str(
        json.dumps(bases.extended_state(state, ordered[:new_tokens], id_count(tokenizer)))
    )


METHODS = {"ours": ours, "rival": rival}


def tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> int:
    """How many tokens `texts` take."""
    return sum(len(each.ids) for each in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))


def with_mean(ratios: dict[str, float]) -> dict[str, float]:
    """Ratios by source, rounded, and the mean of them."""
    return {
        **{k: round(v, 5) for k, v in ratios.items()},
        "mean": round(sum(ratios.values()) / len(ratios), 5),
    }
