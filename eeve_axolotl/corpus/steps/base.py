"""What a step of ours is, as datatrove's executors run it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator

from datatrove.data import Document as DatatroveDocument
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from eeve_axolotl.corpus.memory import give_back
from eeve_axolotl.corpus.plan import Plan
from eeve_axolotl.errors import EEVEError

# datatrove reports each task at length; only in a cluster job's own log is that of use.
if "SLURM_JOB_ID" not in os.environ:
    logger.disable("datatrove")

# datatrove opens three logs for each task, and for each of them loguru asks anew where Python's libraries are: 8 ms.
with contextlib.suppress(ImportError, AttributeError):  # it is loguru's own, and may go
    from loguru._better_exceptions import ExceptionFormatter

    _cached = staticmethod(functools.cache(ExceptionFormatter._get_lib_dirs))
    setattr(ExceptionFormatter, "_get_lib_dirs", _cached)  # noqa: B010  mypy takes it for a method


class Step(PipelineStep):
    """A step of ours: `work` does it; a user's mistake is left in a file for the command to tell."""

    type = "corpus"

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        """Run `work`; pass on the documents that it yields, if any."""
        give_back()
        folder = self.plan.folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield from self.work(rank) or ()
        except EEVEError as error:
            # Not every executor brings a task's exception back to us.
            (folder / f"{rank:05d}.error").write_text(str(error), encoding="utf-8")
            raise

    def work(self, rank: int) -> Iterable[DatatroveDocument] | None:
        """The step's task `rank`; documents for the next step of the same task, if there is one."""
        raise NotImplementedError
