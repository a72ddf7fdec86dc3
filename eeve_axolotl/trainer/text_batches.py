"""A stage's batches: the text in its order, from where the stage before stopped, or where a checkpoint did.

Every step reads the next sequences, as many as a step has over all processes, so which text a step reads depends on
what was read before and on the global batch alone. Nothing is left out, and nothing is read twice within a pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from accelerate.utils import broadcast_object_list
from torch.utils.data import BatchSampler
from transformers.trainer_utils import has_length

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.records import CHECKPOINT_TEXT, TEXT, read
from eeve_axolotl.trainer.text_order import Cut, Part, Position, Text, identity

LOG = logger("text")

TOKENS = "input_ids"

COMPARED = 64
"""Samples whose tokens tell a corpus from others; of the rest their lengths do."""


if TYPE_CHECKING:
    from axolotl.core.trainers.base import AxolotlTrainer as _Trainer
else:
    _Trainer = object  # the trainer that the mixin is put before


class ReadsOnMixin(_Trainer):
    """Put before Axolotl's trainer: `begin_text` says where a stage begins to read, `text_record` what it has read."""

    _text: Text | None = None
    _start: Position  # where the stage began
    _origin: tuple[int, Position]  # where this process began: the optimiser step, and the position before it

    def begin_text(self, before: Mapping | None, checkpoint: str | None = None) -> None:
        """Find the place in the text where the stage begins to read, or goes on after `checkpoint`.

        Args:
            before: what the stage before had read (`text_record`), None to begin at the start.

        Raises EEVEError for a checkpoint that has read another text, or does not say which.
        """
        if not has_length(self.train_dataset):
            self._text = None
            # Axolotl packs a stream with random numbers: in a worker of its own, where training draws none, they are
            # the same when a resumed stage reads the stream again.
            self.args.dataloader_num_workers = max(1, self.args.dataloader_num_workers)
            LOG.info("reads a stream from its beginning")
            return
        # All take what the main process has read: another machine may not have the files.
        written = read(Path(checkpoint) / TEXT, CHECKPOINT_TEXT) if checkpoint else None
        before, written = broadcast_object_list([before, written], from_process=0)
        lengths = _lengths(self.train_dataset)
        corpus = identity(lengths, _some(self.train_dataset))
        if checkpoint:
            self._resume(written or {}, lengths, corpus, checkpoint)
        else:
            self._go_on(before, lengths, corpus)

    def _resume(self, written: Mapping, lengths: np.ndarray, corpus: str, checkpoint: str) -> None:
        part = Part.read(written, checkpoint)
        if part.corpus != corpus:
            raise EEVEError(
                f"{checkpoint} has read another text than the one that this config names; give it that text, or begin "
                "the stage anew"
            )
        self._text, self._start = Text(lengths, part.seed, corpus), part.start
        self._origin = written["step"], self._text.go_on(part.end, self._cut())

    def _go_on(self, before: Mapping | None, lengths: np.ndarray, corpus: str) -> None:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._text, cut, start, why = Text(lengths, seed, corpus), self._cut(), None, ""
        if before is not None:
            try:
                part = Part.read(before, "the record of the stage before")
                if part.corpus != corpus:
                    raise EEVEError("the stage before read another text")
                on = Text(lengths, part.seed, corpus)  # the order is that of the stage before
                start, self._text = on.go_on(part.end, cut), on
            except EEVEError as error:
                why = f": {error}"
        self._start = start or self._text.beginning(cut)
        self._origin = 0, self._start
        LOG.info("%s", _in_words(self._start) + why)

    def _cut(self) -> Cut:
        """How the trainer's arguments cut the text."""
        args, strategy = self.args, self.args.train_sampling_strategy
        shuffled = not args.curriculum_sampling and strategy != "sequential"
        if args.sample_packing and not args.pretraining:
            if args.sample_packing_sequentially:
                return Cut(args.max_seq_length, in_turn=True, shuffled=shuffled)
            most = args.sample_packing_bin_size or args.max_seq_length
            return Cut(args.max_seq_length, args.sample_packing_group_size, most, shuffled=shuffled)
        grouped = shuffled and strategy == "group_by_length"
        return Cut(shuffled=shuffled, by_length=self.get_total_train_batch_size(args) if grouped else None)

    def text_record(self) -> dict:
        """The part of the text that the stage has read so far, for its record, as `begin_text` takes it."""
        if self._text is None:
            return {"streamed": True}
        part = Part(self._text.identity, self._text.seed, self._start, self._position())
        return {**part.as_mapping(), "samples": len(self._text.lengths)}

    def write_text(self, checkpoint: Path) -> None:
        """Write into a checkpoint what is read so far."""
        write_json(checkpoint / TEXT, {**self.text_record(), "step": self.state.global_step})

    def _position(self) -> Position:
        """Where reading goes on after the optimiser steps that are done."""
        assert self._text is not None  # begin_text found it
        step, position = self._origin
        count = (self.state.global_step - step) * self.get_total_train_batch_size(self.args)
        return self._text.after(position, count)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._text is None:
            return super()._get_train_sampler(train_dataset)
        return TextBatches(self, self._text)


class TextBatches(BatchSampler):
    """The micro batches of all processes in turn; Accelerate deals them out one by one.

    To transformers it is as long as a pass, in whole steps; the text goes on where such an epoch ends.
    """

    def __init__(self, trainer: ReadsOnMixin, text: Text):
        args = trainer.args
        self.trainer, self.text = trainer, text
        self.rows = trainer._train_batch_size
        cut = trainer._origin[1].cut
        self.packed = cut.packed_to is not None
        self.in_one_row = self.packed and not args.multipack_real_batches
        step = trainer.get_total_train_batch_size(args)  # sequences
        self.batches_of_a_step = step // self.rows
        self.steps_of_a_pass = math.ceil(text.beginning(cut, trainer._start.passes).of / step)
        self._begun = False
        super().__init__(range(len(self)), batch_size=1 if self.in_one_row else self.rows, drop_last=True)

    def __len__(self) -> int:
        return self.steps_of_a_pass * self.batches_of_a_step

    def __iter__(self) -> Iterator[list]:
        """The batches from the trainer's step on.

        In a resumed stage transformers passes over those of the epoch that are trained: these are blanks here.
        """
        blanks = 0
        if not self._begun and not self.trainer.args.ignore_data_skip:
            blanks = self.trainer.state.global_step % self.steps_of_a_pass * self.batches_of_a_step
        self._begun = True
        batches = self._batches(self.text.read(self.trainer._position()))
        return itertools.chain(
            itertools.repeat([0] * self.batch_size, blanks), itertools.islice(batches, len(self) - blanks)
        )

    def _batches(self, sequences: Iterator[list[int]]) -> Iterator[list]:
        while True:
            batch = list(itertools.islice(sequences, self.rows))
            samples = list(itertools.chain.from_iterable(batch))
            yield [samples] if self.in_one_row else batch if self.packed else samples


def _lengths(dataset: Any) -> np.ndarray:
    """Tokens of each sample, (samples,); 1 where a collator is to tokenize it."""
    if "length" in dataset.column_names:
        return np.asarray(dataset["length"], dtype=np.int64)
    if TOKENS not in dataset.column_names:
        return np.ones(len(dataset), dtype=np.int64)
    tables = dataset.select_columns([TOKENS]).with_format("arrow").iter(batch_size=10_000)
    return np.concatenate([pc.list_value_length(table[TOKENS]).to_numpy() for table in tables])


def _some(dataset: Any) -> Iterator[str]:
    """The tokens of some samples, or all of each where there are none."""
    for row in np.linspace(0, len(dataset) - 1, min(COMPARED, len(dataset))).astype(int):
        sample = dataset[int(row)]
        yield str([int(token) for token in sample[TOKENS]] if TOKENS in sample else sample)


def _in_words(position: Position) -> str:
    """Where reading begins, for the log."""
    if not position.passes and not position.sequences and position.before is None:
        return f"begins at the start of the text, {position.of:,} sequences a pass"
    return (
        f"goes on in the text where the stage before stopped: after {position.sequences:,} of {position.of:,} sequences "
        f"of pass {position.passes + 1}"
    )
