"""Runs parts of the battery in this process: `benchmarks/gpu/run.sh` starts it, once for each part."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if os.environ.get("EEVE_GPU_EXTRA"):  # run.sh's, from a folder of wheels
    sys.path.append(os.environ["EEVE_GPU_EXTRA"])

import torch

from benchmarks.gpu.battery import RESULTS, SECONDS, Battery

PARTS = ["stages", "head", "fp8", "settings", "memory", "optimizers", "ablation"]
LETTERS = dict(zip("abcdefg", PARTS, strict=True))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}, or a to g; all by default")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="no figure of a part begins later")
    parser.add_argument("--list", action="store_true", help="name the parts, and nothing else")
    args = parser.parse_args(arguments)
    args.parts = [LETTERS.get(each, each) for each in args.parts] or PARTS
    if unknown := [each for each in args.parts if each not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; give some of {', '.join(PARTS)}, or a to g")
    if not (args.rehearse or args.list or torch.cuda.is_available()):
        parser.error("PyTorch sees no GPU here; --rehearse runs every part at tiny sizes on a CPU")
    return args


def results(rehearse: bool) -> Path:
    """Where lines are written: as EEVE_GPU_RESULTS says, or OUT."""
    for name in ("EEVE_GPU_RESULTS", "OUT"):
        if os.environ.get(name):
            return Path(os.environ[name])
    return Path(tempfile.mkdtemp(prefix="eeve-gpu-rehearsal-")) if rehearse else RESULTS


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.list:
        print(*args.parts)
        return 0
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if args.rehearse:
        torch.set_num_threads(1)
    folder, errors = results(args.rehearse), 0
    for part in args.parts:
        battery = Battery(part, folder, args.rehearse, args.seconds)
        importlib.import_module(f"benchmarks.gpu.{part}").run(battery)
        errors += battery.errors
    print(f"Lines are in {folder}" + (f"; {errors} figures ended with an error" if errors else ""))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
