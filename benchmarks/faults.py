"""A campaign of injected faults against whole chains: nothing is lost, nothing is wrong without a word.

    python benchmarks/faults.py --json --seed 1 --minutes 10

Each fault is drawn by the seed and goes against a chain on disk that a user's own files lie about in. Most chains are small
(tests/faults/small_chain.py: the project's own commands, stand-ins for Axolotl's) and run in a child process that is
killed, refused by the disk or interrupted at one of its changes to the disk, or after some time. Some are `axolotl eeve run`
as it is, killed with all that it started. After each fault the same command is run again, without one.

survived: the fault did no harm, or a rerun ends in the weights, figures and report of an undisturbed chain.
clear_error: one sentence and no traceback, and then the same.
silent: a wrong result taken for done, a traceback, a process left behind, or a command that hung.
lost: a user's file changed or gone, or no rerun gets to the end.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["AXOLOTL_DO_NOT_TRACK"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eeve_axolotl.files import sha256
from eeve_axolotl.pipeline import keeper, launch
from eeve_axolotl.records import HISTORY
from tests.faults import inject, small_chain
from tests.faults.grounds import unharmed
from tests.faults.inject import Fault, Outcome
from tests.faults.wrong import READERS, corruptions, read_wrong
from tests.faults.wrong import make as make_records

REFUSALS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EDQUOT, errno.EIO)
REAL = 0.4  # of the time goes to chains of the real `axolotl`
SURVIVED, CLEAR, SILENT, LOST = "survived", "clear_error", "silent", "lost"


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: one of the four, and for the last two what was seen."""

    kind: str
    seen: str = ""


class Campaign:
    """Small chains: a fresh one, one whose tokenizer is built, and one that is done, of which each fault gets a copy."""

    def __init__(self, place: Path, source: random.Random):
        self.place, self.source, self.count = place, source, 0
        _import_what_children_need()
        self.fresh, self.built, self.done = (place / name for name in ("fresh", "built", "done"))
        self.fresh.mkdir()
        self.planted = small_chain.make(self.fresh)
        shutil.copytree(self.fresh, self.done)
        begun = time.monotonic()
        whole = inject.run(self.done, small_chain.run)
        self.seconds, self.changes = time.monotonic() - begun, {self.fresh: whole.changes}
        self.expected = small_chain.results(self.done)
        if whole.status or len(self.expected) != len(small_chain.RESULTS):
            raise SystemExit(f"the undisturbed chain did not end: {whole.printed[-2000:]}")
        shutil.copytree(self.fresh, self.built)
        shutil.copytree(self.done / "words", self.built / "words")
        self.changes[self.built] = inject.run(self._copy(self.built), small_chain.run).changes
        self.records = place / "records"
        self.records.mkdir()
        make_records(self.records)

    def one(self) -> tuple[str, Verdict]:
        """A fault, by what it is, and what became of it."""
        kinds: dict[Callable[[], tuple[str, Verdict]], int] = {
            self.killed: 4, self.refused: 4, self.interrupted: 1, self.full: 1, self.corrupted: 3, self.changed: 2,
            self.linked: 1, self.mounted: 1, self.orphaned: 1, self.read: 3,
        }  # fmt: skip
        (kind,) = self.source.choices([*kinds], [*kinds.values()])
        return kind()

    # --- in the middle of a chain ---

    def killed(self) -> tuple[str, Verdict]:
        """kill -9, before a change or at any moment."""
        if self.source.random() < 0.3:
            seconds = self.source.uniform(0, self.seconds)
            return f"killed after {seconds:.2f} s", self._disturbed(self.fresh, Fault(seconds=seconds))
        ground, at = self._moment()
        return f"killed at change {at}, {ground.name}", self._disturbed(ground, Fault(at=at))

    def refused(self) -> tuple[str, Verdict]:
        """A change that the disk refuses, once or from there on."""
        (ground, at), error, lasts = self._moment(), self.source.choice(REFUSALS), self.source.random() < 0.5
        what = f"{errno.errorcode[error]}{' from' if lasts else ' at'} change {at}, {ground.name}"
        return what, self._disturbed(ground, Fault(at=at, error=error, lasts=lasts))

    def interrupted(self) -> tuple[str, Verdict]:
        """Ctrl-C."""
        ground, at = self._moment()
        return f"Ctrl-C at change {at}, {ground.name}", self._disturbed(ground, Fault(at=at, error=-2))

    def full(self) -> tuple[str, Verdict]:
        """No file can be larger than so many bytes: writes fail in the middle, in libraries too."""
        limit = int(10 ** self.source.uniform(3.3, 5.5))
        return f"files of at most {limit:,} bytes", self._disturbed(self.fresh, Fault(limit=limit))

    def linked(self) -> tuple[str, Verdict]:
        """Outputs are links to another disk, and the chain is killed."""
        directory = self._copy(self.built)
        links = {}
        for name in ("out3", "out6", "pipeline", "prepared"):
            if self.source.random() < 0.7:
                links[name] = self.place / f"elsewhere{self.count}-{name}"
                shutil.move(directory / name, links[name])
                (directory / name).symlink_to(links[name])
        at = self.source.randint(1, self.changes[self.built])
        verdict = self._after(directory, inject.run(directory, small_chain.run, Fault(at=at)))
        if any(not (directory / name).is_symlink() for name in links):
            verdict = Verdict(LOST, f"a link is one no more: {[*links]}")
        for place in links.values():
            shutil.rmtree(place)
        return f"links {[*links]}, killed at change {at}", verdict

    def _moment(self) -> tuple[Path, int]:
        """A change of a chain that begins with its tokenizer, or more often of one whose tokenizer is built."""
        ground = self.source.choice((self.fresh, self.built, self.built))
        return ground, self.source.randint(1, self.changes[ground])

    def _disturbed(self, ground: Path, fault: Fault) -> Verdict:
        """A chain with a fault."""
        directory = self._copy(ground)
        return self._after(directory, inject.run(directory, small_chain.run, fault))

    def _after(self, directory: Path, ended: Outcome) -> Verdict:
        """What a faulty run did, and whether the next one gets to the undisturbed end."""
        if not unharmed(directory, self.planted):
            return Verdict(LOST, "a user's file was harmed")
        if keeper.processes_of(f"{directory / 'pipeline/logs'}/"):
            return Verdict(SILENT, "a process was left behind")
        if ended.status > 0 and ended.told is None:
            return Verdict(SILENT, f"exit {ended.status} without one sentence: {ended.printed[-1500:]}")
        if ended.status == 0 and small_chain.results(directory) != self.expected:
            return Verdict(SILENT, f"done with other results: {self._other(directory)}")
        again = inject.run(directory, small_chain.run)
        if again.status:
            return Verdict(LOST, f"a rerun ends with: {again.printed[-1500:]}")
        if small_chain.results(directory) != self.expected:
            return Verdict(SILENT, f"a rerun has other results: {self._other(directory)}")
        if not unharmed(directory, self.planted):
            return Verdict(LOST, "a user's file was harmed by the rerun")
        return Verdict(CLEAR if ended.status > 0 else SURVIVED)

    # --- after a chain is done ---

    def corrupted(self) -> tuple[str, Verdict]:
        """A record or a file of weights that is not what was written."""
        directory = self._copy(self.done)
        weights = self.source.random() < 0.4
        pattern = "*.safetensors" if weights else "*.json"
        files = [
            each
            for each in sorted(directory.rglob(pattern))
            if not {"mine", "base"} & {*each.parts} and _is_record(each)
        ]
        path = self.source.choice(files)
        before = path.read_bytes()
        if weights:
            at = self.source.randrange(len(before))
            wrong = before[:at] if self.source.random() < 0.5 else _flipped(before, at)
            what = f"{'cut' if len(wrong) < len(before) else 'flipped'} at {at}"
        else:
            what, wrong = self.source.choice([*corruptions(json.loads(before), self.source.random(), 40)])
        path.write_bytes(wrong)
        name = str(path.relative_to(directory))
        return f"{name}: {what}", self._put_back(directory, name, before)

    def changed(self) -> tuple[str, Verdict]:
        """An input that is another, of the same size and time."""
        directory = self._copy(self.done)
        names = ("corpus.jsonl", "text.jsonl", "held.jsonl", "base/config.json", "base/tokenizer_config.json",
                 "base/model.safetensors", "words/tokenizer.json", "out3/config.json")  # fmt: skip
        name = self.source.choice(names)
        path = directory / name
        before, at = path.read_bytes(), path.stat()
        path.write_bytes(
            before.replace("조용".encode(), "고요".encode())
            .replace(b"true", b" 0.7", 1)
            .replace(b'"<s>"', b'"<S>"')
        )
        if path.read_bytes() == before:
            path.write_bytes(_flipped(before, len(before) - 9))
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        return f"changed {name}", self._put_back(directory, name, before, changed=True)

    def _put_back(self, directory: Path, name: str, before: bytes, changed: bool = False) -> Verdict:
        """What the chain says of a wrong file, and where it gets when its advice is followed, or the file put back."""
        ended = inject.run(directory, small_chain.run)
        others = {
            each: value
            for each, value in self.expected.items()
            if each not in (name, small_chain.RESULTS[-1])
        }
        if ended.status and ended.told is None:
            return Verdict(SILENT, f"exit {ended.status} without one sentence: {ended.printed[-1500:]}")
        if ended.status == 0:
            found = small_chain.results(directory)
            wrong = [each for each in others if found.get(each) != others[each]]
            if wrong and not (
                changed and name == "held.jsonl" and all("evaluation" in each for each in wrong)
            ):
                return Verdict(SILENT, f"went on to other results: {wrong}")
            if changed and not wrong:
                return Verdict(SILENT, "went on as if it were the same")
        path = directory / name
        if (
            "; remove it" in (ended.told or "") and path.name != HISTORY
        ):  # whose removal is seen in the report
            path.unlink()
        elif ended.status or changed or path.read_bytes() != before:
            path.write_bytes(before)
        again = (
            self._after(directory, Outcome(0 if ended.status == 0 else 1, ended.printed, 0))
            if ended.status
            else None
        )
        return again or self._after(directory, Outcome(-9, "", 0))

    def read(self) -> tuple[str, Verdict]:
        """A record that is wrong, for each of the commands that read it."""
        reader, file = self.source.choice(READERS)
        with (
            contextlib.chdir(self.records),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            tried = [*read_wrong(reader, file, self.source.randrange(10**9), most=10)]
        badly = [(what, told) for what, well, told in tried if not well]
        what = f"{reader.__name__} {file}: {len(tried)} ways"
        return what, Verdict(SILENT, str(badly[:2])) if badly else Verdict(CLEAR)

    # --- what is outside ---

    def orphaned(self) -> tuple[str, Verdict]:
        """A process of an earlier chain is still at work."""
        directory = self._copy(self.built)
        mark = {keeper.VARIABLE: f"{directory / 'pipeline/logs/stage3.steps.jsonl'}"}
        orphan = subprocess.Popen(["sleep", "1000"], env={**os.environ, **mark})

        def impatient() -> None:
            launch.WAIT = 0.1
            small_chain.run()

        try:
            ended = inject.run(directory, impatient)
        finally:
            orphan.kill()
            orphan.wait()
        if f"kill -9 {orphan.pid}" not in (ended.told or ""):
            return "an orphan", Verdict(SILENT, f"began beside it: {ended.printed[-500:]}")
        return "an orphan", self._after(directory, ended)

    def mounted(self) -> tuple[str, Verdict]:
        """An output is a mount point of a disk that is too small, and then is not."""
        directory = self._copy(self.built)
        name = self.source.choice(("pipeline", "out3", "out6"))
        kilobytes = int(2 ** self.source.uniform(3, 12))
        what = f"{name} on a disk of {kilobytes} kB"

        def both() -> None:
            keep = directory / "kept"
            shutil.copytree(directory / name, keep)
            if not _mount(directory / name, f"{kilobytes}k"):
                print("no mounts here")
                return
            with contextlib.suppress(OSError):
                shutil.copytree(keep, directory / name, dirs_exist_ok=True)
            first = inject.run(directory, small_chain.run)
            subprocess.run(["mount", "-o", "remount,size=64m", str(directory / name)], check=True)
            shutil.copytree(keep, directory / name, dirs_exist_ok=True)
            verdict = self._after(directory, first)
            print(json.dumps([verdict.kind, verdict.seen]))

        ended = inject.run(self._copy(self.built), both)
        last = (ended.printed.strip().splitlines() or [""])[-1]
        if last == "no mounts here":
            return what, Verdict(SURVIVED)
        try:
            return what, Verdict(*json.loads(last))
        except (ValueError, TypeError):
            return what, Verdict(SILENT, ended.printed[-1500:])

    def _copy(self, ground: Path) -> Path:
        """A fresh copy, in the place of the one before the last."""
        self.count += 1
        shutil.rmtree(self.place / f"try{self.count - 2}", ignore_errors=True)
        directory = self.place / f"try{self.count}"
        shutil.copytree(ground, directory, symlinks=True)
        return directory

    def _other(self, directory: Path) -> list[str]:
        found = small_chain.results(directory)
        return [name for name, each in self.expected.items() if found.get(name) != each]


class RealChain:
    """`axolotl eeve run`, from the tokenizer to the report, killed with all that it started."""

    def __init__(self, place: Path, source: random.Random):
        from tests.e2e.commands import Server

        self.place, self.source, self.server, self.count = place, source, Server().start(), 0
        self.ground = place / "real"
        _make_real(self.ground)
        self.whole = place / "whole"
        shutil.copytree(self.ground, self.whole)
        begun = time.monotonic()
        done = self.server.run(["eeve", "run", "pipeline.yml"], self.whole)
        if done.returncode:
            raise SystemExit(f"the undisturbed chain did not end: {done.stdout[-3000:]}")
        self.seconds, self.expected = time.monotonic() - begun, _weights(self.whole)

    def faults(self) -> Iterator[tuple[str, Verdict]]:
        """One chain, killed until it is done; each kill is judged when it is."""
        self.count += 1
        directory = self.place / f"killed{self.count}"
        shutil.copytree(self.ground, directory)
        moments: list[str] = []
        while True:
            after = self.seconds * self.source.uniform(0.02, 0.35)
            child = self.server.begin(["eeve", "run", "pipeline.yml"], directory, directory / "axolotl.log")
            end = time.monotonic() + after
            while time.monotonic() < end and os.path.exists(f"/proc/{child}"):
                time.sleep(0.01)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if self.server.end() != -signal.SIGKILL:
                break
            moments.append(f"killed in {_phase(directory)}")
        done = self.server.run(["eeve", "run", "pipeline.yml"], directory)
        verdict = Verdict(SURVIVED)
        if done.returncode:
            verdict = Verdict(LOST, done.stdout[-1500:])
        elif _weights(directory) != self.expected:
            verdict = Verdict(SILENT, "other weights than those of an undisturbed chain")
        shutil.rmtree(directory)
        return ((moment, verdict) for moment in moments)


def _make_real(directory: Path) -> None:
    """A base with SOLAR's tokenizer, and a chain: tokenizer, stages 1 to 3, stage 6, its merge, figures, report."""
    import importlib.util

    from transformers import AutoTokenizer

    from tests.conftest import tiny_llama
    from tests.e2e.helpers import write_recipe

    base = directory / "base"
    base.mkdir(parents=True)
    package = Path(importlib.util.find_spec("mistral_common").origin).parent  # type: ignore[union-attr,arg-type]
    shutil.copy(package / "data" / "tokenizer.model.v1", base / "tokenizer.model")
    (base / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}'
    )
    AutoTokenizer.from_pretrained(base).save_pretrained(base)
    tiny_llama(32000, hidden_size=16).save_pretrained(base)
    sentence = "안녕, 학교는 지금 조용하다. The school is quiet now. "
    lines = (json.dumps({"text": sentence * 5 + str(number)}) + "\n" for number in range(12))
    (directory / "text.jsonl").write_text("".join(lines))
    small_chain._yaml(directory / "tokenizer.yml", {
        "base": "./base", "output": "./tokenizer", "corpus": [{"path": "text.jsonl"}], "new_tokens": 4,
        "intermediate_vocab_size": 60, "min_count": 1,
    })  # fmt: skip
    often = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    write_recipe(directory, 3, "./base", **often, eeve={"stages": [1, 2, 3], "save_stages": "all"})
    write_recipe(directory, 6, "./stage3", **often)
    small_chain._yaml(directory / "pipeline.yml", {
        "output": "./pipeline", "tokenizer": "tokenizer.yml", "runs": ["stage3.yml", "stage6.yml"], "launcher": "python",
        "evaluate": {"texts": {"Korean": "./text.jsonl"}, "limit": 2, "prompts": []},
    })  # fmt: skip


def _weights(directory: Path) -> dict[str, str]:
    places = ("tokenizer/tokenizer.json", "stage3/stage1/model.safetensors", "stage3/stage2/model.safetensors",
              "stage3/model.safetensors", "stage6/adapter_model.safetensors", "stage6/merged/model.safetensors",
              "pipeline/evaluation/stage6.json")  # fmt: skip
    return {name: sha256(directory / name) for name in places if (directory / name).is_file()}


def _phase(directory: Path) -> str:
    """What the chain was at when it was killed, by its newest log."""
    logs = sorted((directory / "pipeline/logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "the beginning"
    marks = {"Saving": "save", "Unable to find prepared": "prepare", "{'loss'": "train"}
    text = logs[-1].read_text(errors="replace")
    last = max(marks, key=text.rfind)
    return f"{logs[-1].stem}{f' ({marks[last]})' if last in text else ''}"


def _is_record(path: Path) -> bool:
    return (
        path.suffix == ".safetensors"
        or path.name.startswith("eeve_")
        or path.parent.name in ("runs", "evaluation")
    )


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _mount(directory: Path, size: str) -> bool:
    """Mount an empty disk in namespaces of this process's own; False where that is not possible."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER, CLONE_NEWNS
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _import_what_children_need() -> None:
    import matplotlib.pyplot  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import eeve_axolotl.evaluation.inspection
    import eeve_axolotl.report.plots
    import eeve_axolotl.tokenizer.build  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    """Run the campaign; exits with 1 if anything was lost or silent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--json", action="store_true", help="the figures alone, as JSON in the last line")
    parser.add_argument("--no-real", action="store_true", help="small chains only")
    options = parser.parse_args()
    source, counts = random.Random(options.seed), collections.Counter[str]()
    begun = time.monotonic()

    def judge(what: str, verdict: Verdict) -> None:
        counts[verdict.kind] += 1
        print(f"{sum(counts.values()):4d}  {verdict.kind:11}  {what}", file=sys.stderr)
        if verdict.seen:
            print(f"      {verdict.seen}", file=sys.stderr)
        sys.stderr.flush()

    with tempfile.TemporaryDirectory() as place:
        small = Campaign(Path(place), source)
        until = begun + 60 * options.minutes * (1 if options.no_real else 1 - REAL)
        while time.monotonic() < until:
            judge(*small.one())
        if not options.no_real:
            real = RealChain(Path(place), source)
            while True:
                for each in real.faults():
                    judge(*each)
                if time.monotonic() > begun + 60 * options.minutes:
                    break
            real.server.stop()
    figures = {"faults": counts.total(), **{kind: counts[kind] for kind in (SURVIVED, CLEAR, SILENT, LOST)}}
    if not options.json:
        print(
            f"{figures['faults']} faults in {(time.monotonic() - begun) / 60:.0f} minutes, seed {options.seed}"
        )
    print(json.dumps(figures))
    sys.exit(1 if counts[SILENT] or counts[LOST] else 0)


if __name__ == "__main__":
    main()
