"""What the parts share: the sizes, the clock, and one JSON line per figure, which is not made again once it is there."""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.freezing_methods import SOLAR, Shape

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
SECONDS = 420  # of a part: no figure begins later. run.sh ends a part that takes 480
PACKAGES = [
    *("torch", "transformers", "peft", "accelerate", "safetensors", "triton"),
    *("axolotl", "bitsandbytes", "torchao", "flash-attn", "liger-kernel", "cut-cross-entropy"),
]
# What the driver calls a card, and the planner's name of it.
CARDS = {
    "H100 80GB HBM3": "h100-80gb",
    "H100 PCIe": "h100-pcie-80gb",
    "H200": "h200-141gb",
    "A100-SXM4-80GB": "a100-80gb",
    "A100-SXM4-40GB": "a100-40gb",
    "L40S": "l40s-48gb",
}


class CannotRunError(Exception):
    """Why a figure cannot be made here, in a sentence."""


@dataclass(frozen=True)
class Sizes:
    """SOLAR's true shape in bf16 on a card; in a rehearsal its proportions, so small that a CPU does it at once."""

    rehearsal: bool

    @property
    def device(self) -> str:
        return "cpu" if self.rehearsal else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.rehearsal else torch.bfloat16

    @property
    def shape(self) -> Shape:
        return Shape(64, 2, 640, 500) if self.rehearsal else Shape(**SOLAR)

    @property
    def length(self) -> int:
        return 32 if self.rehearsal else 4096

    @property
    def turns(self) -> int:
        """Timed steps of each way."""
        return 2 if self.rehearsal else 7


@dataclass
class Battery:
    """One part's figures: those that are there already, and where the next ones are written."""

    part: str
    results: Path
    rehearsal: bool = False
    seconds: float = SECONDS
    errors: int = 0
    _lines: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        self.sizes = Sizes(self.rehearsal)
        self.card = "CPU" if self.rehearsal else torch.cuda.get_device_name()
        self.results.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        for folder in {self.results, self.results if self.rehearsal else RESULTS}:
            for line in _lines(folder / f"{self.part}.jsonl"):
                if line.get("rehearsal") == self.rehearsal and line.get("card") == self.card:
                    key = _key(line["figure"], line["settings"])
                    if "found" not in self._lines.get(key, {}):
                        self._lines[key] = line

    @property
    def planner_card(self) -> str | None:
        """What the planner calls this card; None where it does not know it."""
        return next((name for part, name in CARDS.items() if part in self.card), None)

    def clock(self) -> float:
        """Seconds, once the card has nothing left to do."""
        if self.sizes.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def figure(self, name: str, make: Callable[[], dict], **settings) -> dict | None:
        """What `make` finds, made only if it is not there yet; None, with the reason in a line, where it cannot run."""
        key = _key(name, settings)
        there = self._lines.get(key, {})
        if "found" in there:
            print(f"{self.part}: {name} {_shown(settings)}: there", flush=True)
            return there["found"]
        if time.monotonic() - self._began > self.seconds:
            self._write(key, name, settings, why="no time was left in this part; run it again to go on")
            return None
        began = time.monotonic()
        try:
            found = make()
        except CannotRunError as why:
            self._write(key, name, settings, why=str(why))
            return None
        except torch.OutOfMemoryError:
            found = {"fits": False}
        except Exception as error:
            traceback.print_exc()
            self.errors += 1
            first = (str(error).strip() or "no message").splitlines()[0][:300]
            self._write(key, name, settings, why=f"{type(error).__name__}: {first}", is_error=True)
            return None
        finally:
            # A failed figure's tensors hang on the traceback until here.
            gc.collect()
            if self.sizes.device == "cuda":
                torch.cuda.empty_cache()
        self._write(key, name, settings, found=found, seconds=round(time.monotonic() - began, 1))
        return found

    def _write(self, key: str, name: str, settings: dict, **what) -> None:
        print(
            f"{self.part}: {name} {_shown(settings)}: {what.get('why') or _shown(what['found'])}", flush=True
        )
        before = self._lines.get(key, {})
        line = {"part": self.part, "figure": name, "settings": settings, **what, **self._origin()}
        self._lines[key] = line
        if "why" in what and before.get("why") == what["why"]:
            return
        path = self.results / f"{self.part}.jsonl"
        with path.open("a+b") as file:
            # A process that was killed may have left half a line.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")

    def _origin(self) -> dict:
        return {
            "card": self.card,
            "rehearsal": self.rehearsal,
            "versions": versions(),
            "commit": commit(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def is_installed(*packages: str) -> bool:
    """Whether all of these can be imported here."""
    return all(importlib.util.find_spec(each) is not None for each in packages)


def needs(package: str, for_what: str) -> None:
    """Raise CannotRunError where `package` is not installed."""
    if not is_installed(package):
        raise CannotRunError(f"{package} is not installed, which {for_what} needs")


def needs_a_card(for_what: str) -> None:
    """Raise CannotRunError on a CPU."""
    if not torch.cuda.is_available():
        raise CannotRunError(f"{for_what} runs on a card alone")


@functools.cache
def versions() -> dict[str, str]:
    """Of the packages that decide about a figure, and of CUDA."""
    found = {}
    for each in PACKAGES:
        try:
            found[each] = importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


@functools.cache
def commit() -> str:
    """The commit that is checked out, "+" after it where files differ; without git, a hash of the source."""
    command = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        total = hashlib.sha256()
        for path in sorted([*ROOT.glob("eeve_axolotl/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]):
            total.update(path.read_bytes())
        return f"source sha256 {total.hexdigest()}"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _lines(path: Path) -> Iterator[dict]:
    """The whole lines of a file of results."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            print(f"{path.name}: a line that is not whole is left out", file=sys.stderr)
            continue
        yield line


def _key(name: str, settings: dict) -> str:
    return json.dumps([name, settings], sort_keys=True)


def _shown(values: dict) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
        if not isinstance(value, dict)
    )
