"""The whole way from a corpus YAML to its output: the chain of steps, where they run, and what is done already."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep

from eeve_axolotl.corpus import steps
from eeve_axolotl.corpus.memory import give_back
from eeve_axolotl.corpus.plan import Plan, make_plan
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import check_writable
from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter, Reading

LOG = logger("corpus")
_GARBAGE = 50_000  # objects more than before, until Python looks for garbage


def build(settings: CorpusSettings) -> Path:
    """Make the corpus that `settings` describe; return its directory.

    Raises EEVEError for what the user can put right. Under Slurm the steps are queued, and the output appears
    when the last of them has run.
    """
    output = Path(settings.output)
    check_writable(output, "output")
    give_back()
    plan = make_plan(settings)
    if output.exists() and not settings.overwrite:
        raise EEVEError(f"{output} exists already; give another `output`, or set `overwrite: true`")
    if not Path(plan.staging).exists():
        # Shards that were published, or thrown away, are not there to be taken up.
        for step in ("shards", "publish"):
            shutil.rmtree(plan.folder(step), ignore_errors=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the executors' workers are the parallelism
    with seldom_collected():
        _run_chain(plan)
    return output


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """What was imported stays, and rows that are read are no garbage: looking through them took a twentieth of the time."""
    often, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not frozen:  # else a caller has frozen what it wants to stay so
        gc.freeze()
    gc.set_threshold(_GARBAGE, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)
        if not frozen:
            gc.unfreeze()


def _run_chain(plan: Plan) -> None:
    settings, executor = plan.settings, None
    for link in _chain(plan):
        folder = plan.folder(link.name)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.error"):
            old.unlink()
        executor = _executor(settings, link, plan, executor)
        if settings.executor.kind == "slurm":
            executor.run()
            continue
        with Meter(f"corpus, {link.name}", LOG, functools.partial(_completed, folder, link.tasks)):
            _run(executor, folder, link.tasks)


class _Link(NamedTuple):
    """One run of an executor: the folder that records which tasks are complete, the steps of a task, and how many tasks."""

    name: str
    make: Callable[[Plan], list[PipelineStep]]
    tasks: int


def _chain(plan: Plan) -> list[_Link]:
    """The steps in order."""

    def only(step: type[steps.Step]) -> Callable[[Plan], list[PipelineStep]]:
        return lambda plan: [step(plan)]

    each, near = len(plan.pieces), plan.settings.deduplicate.near
    return [
        _Link("learn", only(steps.Learn), 1),
        _Link("filter", only(steps.Filter), each),
        _Link("lines", only(steps.RepeatedLines), 1),
        _Link("documents", steps.signatures, each),
        *([_Link("buckets", steps.buckets, steps.MINHASH.num_buckets)] if near else []),
        _Link("roles", steps.clusters, 1),
        _Link("passages", only(steps.Passages), each),
        _Link("counts", only(steps.Score), each),
        _Link("choice", only(steps.Choose), 1),
        _Link("split", only(steps.Split), each),
        _Link("shards", only(steps.Shuffle), plan.settings.write.shards + 1),
        _Link("publish", only(steps.Publish), 1),
    ]


def _executor(
    settings: CorpusSettings, link: _Link, plan: Plan, before: PipelineExecutor | None
) -> PipelineExecutor:
    """What runs `link`, under Slurm after `before`. Raises EEVEError for what the settings of an executor lack."""
    common = {
        "pipeline": link.make(plan),
        "tasks": link.tasks,
        "workers": min(settings.executor.workers, link.tasks),
        "logging_dir": str(plan.folder(link.name) / "log"),
        **settings.executor.options,
    }
    if settings.executor.kind == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        missing = {"time", "partition"} - set(settings.executor.options)
        if missing:
            raise EEVEError(f"executor.options for slurm lacks {' and '.join(sorted(missing))}; add it")
        return SlurmPipelineExecutor(**common, job_name=f"eeve-{link.name}", depends=before)
    if settings.executor.kind == "ray":
        try:
            import ray  # noqa: F401  # datatrove imports without it, and fails in the run
            from datatrove.executor import RayPipelineExecutor
        except ImportError:
            raise EEVEError(
                "executor.kind is ray, but ray is not installed; `pip install 'eeve-axolotl[ray]'`, or use local"
            ) from None
        return RayPipelineExecutor(**common)
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(**common)


def _run(executor: PipelineExecutor, folder: Path, tasks: int) -> None:
    """Run one step to its end. Raises EEVEError with the task's own words if one failed over a user's mistake."""
    try:
        executor.run()
    except EEVEError:
        raise
    except Exception:
        _raise_told(folder)
        raise
    _raise_told(folder)
    left = executor.get_incomplete_ranks(range(tasks), skip_completed=True)
    if left:
        raise RuntimeError(f"{len(left)} of {tasks} tasks did not finish; see {folder / 'log' / 'logs'}")


def _completed(folder: Path, tasks: int) -> Reading:
    """What a meter is told: the share of the step's tasks that have completed."""
    return sum(1 for _ in (folder / "log" / "completions").glob("*")) / tasks, 0


def _raise_told(folder: Path) -> None:
    for told in sorted(folder.glob("*.error")):
        raise EEVEError(told.read_text(encoding="utf-8"))
