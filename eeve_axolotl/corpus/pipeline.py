"""The whole way from a corpus YAML to its output: the chain of steps, where they run, and what is done already.

Each step writes into a folder of its own, named after everything that its result depends on. A run that
was killed takes up where it was; a run with other settings computes again only what depends on them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

import eeve_axolotl
from eeve_axolotl.corpus import steps
from eeve_axolotl.corpus.inputs import identity, pieces
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.corpus.report import stage_tokens
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.vocabulary import manifest_base_size

FORMAT = 1  # raise it when a step's result changes for the same settings


def build(settings: CorpusSettings) -> Path:
    """Make the corpus that `settings` describe; return its directory.

    Raises EEVEError for what the user can put right. Under Slurm the steps are queued, and the output appears
    when the last of them has run.
    """
    plan = make_plan(settings)
    output = Path(settings.output)
    if output.exists() and not settings.overwrite:
        raise EEVEError(f"{output} exists already; give another `output`, or set `overwrite: true`")
    if not Path(plan.staging).exists():
        # Shards that were published, or thrown away, are not there to be taken up.
        for step in ("shards", "report"):
            shutil.rmtree(plan.folder(step), ignore_errors=True)
    chain = _chain(plan)
    executor = None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the executors' workers are the parallelism
    for name, make, tasks in chain:
        folder = plan.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.error"):
            old.unlink()
        executor = _executor(settings, make(plan), tasks, folder / "log", name, executor)
        if settings.executor.kind == "slurm":
            executor.run()
            continue
        with _progress(name, tasks, folder / "log" / "completions"):
            _run(executor, folder, tasks)
    return output


def make_plan(settings: CorpusSettings) -> steps.Plan:
    """Look at inputs and tokenizer, and give every step its folder."""
    base = settings.base_vocab_size or manifest_base_size(settings.tokenizer)
    if not Path(settings.tokenizer).is_dir():
        raise EEVEError(
            f"tokenizer {settings.tokenizer} does not exist; build it with `axolotl eeve tokenizer`, or give the "
            "directory of an extended tokenizer"
        )
    if base is None:
        raise EEVEError(
            f"{settings.tokenizer} has no manifest that tells where its new tokens begin; set `base_vocab_size`"
        )
    for recipe in settings.stages.recipes:  # the report, the last step, reads them
        stage_tokens(recipe, settings.stages.gpus, epoch=0)
    found = pieces(settings)
    work = Path(settings.work or f"{settings.output.rstrip('/')}.work")
    depends = {
        "learn": [[group.filters.perplexity for group in settings.mix.values()]],
        "filter": [
            [identity(piece) for piece in found],
            [
                {"name": name, **group.model_dump(include={"language", "template", "filters"})}
                for name, group in settings.mix.items()
            ],
            settings.deduplicate.shortest_line,
        ],
        "lines": [settings.deduplicate.repeated_lines],
        "documents": [],
        "signatures": [settings.deduplicate.near],
        "buckets": [],
        "clusters": [],
        "roles": [settings.held_out, settings.seed],
        "passages": [],
        "counts": [tokenizer_identity(settings.tokenizer), base],
        "choice": [
            [(group.share, group.rule, group.min_density) for group in settings.mix.values()],
            settings.budget,
            settings.choose,
            settings.write.shards,
        ],
        "split": [settings.write],
        "shards": [settings.output],
        "report": [settings.stages],
    }
    folders, so_far = {}, hashlib.sha256(f"{eeve_axolotl.__version__} {FORMAT}".encode())
    for step, keys in depends.items():
        so_far.update(json.dumps([step, keys], default=_plain, sort_keys=True, ensure_ascii=False).encode())
        folders[step] = str(work / f"{step}-{so_far.hexdigest()[:12]}")
    staging = f"{settings.output.rstrip('/')}.{so_far.hexdigest()[:12]}.partial"
    return steps.Plan(settings, found, base, folders, staging)


def _plain(value):
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def _chain(plan: steps.Plan) -> list[tuple[str, Callable[[steps.Plan], list], int]]:
    """The steps in order: the folder that records their completion, how to make them, and their number of tasks."""

    def of(step: type[steps.Step]) -> Callable[[steps.Plan], list]:
        return lambda plan: [step(plan)]

    each, near = len(plan.pieces), plan.settings.deduplicate.near
    return [
        ("learn", of(steps.Learn), 1),
        ("filter", of(steps.Filter), each),
        ("lines", of(steps.RepeatedLines), 1),
        ("documents", steps.signatures, each),
        *([("buckets", steps.buckets, steps.MINHASH.num_buckets)] if near else []),
        ("roles", steps.clusters, 1),
        ("passages", of(steps.Passages), each),
        ("counts", of(steps.Score), each),
        ("choice", of(steps.Choose), 1),
        ("split", of(steps.Split), each),
        ("shards", of(steps.Shuffle), plan.settings.write.shards + 1),
        ("report", of(steps.Report), 1),
    ]


def _executor(settings: CorpusSettings, pipeline: list, tasks: int, log: Path, name: str, depends):
    common = {"pipeline": pipeline, "tasks": tasks, "logging_dir": str(log), **settings.executor.options}
    workers = min(settings.executor.workers, tasks)
    if settings.executor.kind == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        missing = {"time", "partition"} - set(settings.executor.options)
        if missing:
            raise EEVEError(f"executor.options for slurm lacks {' and '.join(sorted(missing))}; add it")
        return SlurmPipelineExecutor(**common, workers=workers, job_name=f"eeve-{name}", depends=depends)
    if settings.executor.kind == "ray":
        try:
            import ray  # noqa: F401
            from datatrove.executor import RayPipelineExecutor
        except ImportError:
            raise EEVEError(
                "executor.kind is ray, but ray is not installed; `pip install 'eeve-axolotl[ray]'`, or use local"
            ) from None
        return RayPipelineExecutor(**common, workers=workers)
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(**common, workers=workers)


def _run(executor, folder: Path, tasks: int) -> None:
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


def _raise_told(folder: Path) -> None:
    for told in sorted(folder.glob("*.error")):
        raise EEVEError(told.read_text(encoding="utf-8"))


class _progress:
    """A bar of the tasks that have completed; nothing when not on a terminal."""

    def __init__(self, name: str, tasks: int, completions: Path):
        self.bar = tqdm(total=tasks, desc=f"{name:10}", unit="task", disable=not sys.stderr.isatty())
        self.completions, self.stop = completions, threading.Event()

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.stop.wait(0.5):
            self._show()

    def _show(self) -> None:
        done = len(list(self.completions.glob("*"))) if self.completions.is_dir() else 0
        self.bar.update(done - self.bar.n)

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.thread.join()
        self._show()
        self.bar.close()
