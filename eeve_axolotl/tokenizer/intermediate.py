"""The card's way to find candidates: an intermediate BPE tokenizer, which knows nothing of the base (steps 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import WhitespaceSplit

from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.watching import learning

LOG = logger("tokenizer")
_FIRST = 0x20000  # the trainer gets a character for each token, from here on: none of them is white space


def learn(table: WordTable, vocab_size: int, memory_mb: int | None = None) -> list[str]:
    """Tokens of a BPE tokenizer of `vocab_size` trained on the table's words: characters, then merges in order.

    Args:
        memory_mb: learn from the most frequent words, as many as a trainer keeps in this memory; None for all.
    """
    least, words = table.fitting(memory_mb)
    tokens = train(table.spans(least), vocab_size, words).get_vocab()
    return sorted(tokens, key=tokens.__getitem__)


def merged(
    runs: Iterable[tuple[list[str], int]], numbers: dict[str, int], vocab_size: int, total: int
) -> list[str]:
    """What a BPE trainer makes of tokens side by side, the first merges first; each once.

    Args:
        runs: tokens that may merge, and how often they stand so.
        numbers: of tokens, by which the trainer decides between equals; those that it lacks are numbered as they come.
        vocab_size: how many tokens to learn, those that merge included.
        total: about how many runs there are, for the bar.
    """

    def as_characters() -> Iterator[tuple[str, int]]:
        for run, count in runs:
            yield "".join(chr(_FIRST + numbers.setdefault(token, len(numbers))) for token in run), count

    trained = train(as_characters(), vocab_size, total)
    tokens = list(numbers)
    found = sorted((number, made) for made, number in trained.get_vocab().items() if len(made) > 1)
    return list(dict.fromkeys("".join(tokens[ord(char) - _FIRST] for char in made) for _, made in found))


def train(words: Iterable[tuple[str, int]], vocab_size: int, total: int = 0) -> Tokenizer:
    """A BPE tokenizer of `vocab_size` tokens, trained on words (without white space) and their counts.

    Args:
        total: about how many words there are, for the bar; 0 if that is not known.
    """

    def lines(meter: Meter) -> Iterator[str]:
        # The trainer counts words itself: give each as often as it occurs, in lines of bounded length.
        for word, count in learning(words, total, meter):
            for n in range(0, count, 1000):
                yield " ".join([word] * min(1000, count - n))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False)
    with Meter("learning, reading words", LOG) as meter:
        tokenizer.train_from_iterator(lines(meter), trainer)
    return tokenizer
