"""What frozen layers in FP8 do to the loss: stages 1, 3 and 5 of real text, beside bf16, emulated on a CPU.

    python benchmarks/frozen_precision.py --directory DIR                                  # a small base, trained here
    python benchmarks/frozen_precision.py --directory DIR --base real --smollm2 FOLDER     # SmolLM2-135M-Instruct

Bases, tokenizer and texts are those of benchmarks/ablation.py, new rows start by the package's default. Layers are in
bf16 and embeddings in 32 bits, under autocast to bf16, as Axolotl holds them. Both ways read the same batches of Korean
and English text; the loss is that of held-out Korean documents. Nothing here is a speed: FP8 is emulated.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import new_rows
from benchmarks.ablation_bases import Base, batches, held_out, load, make
from benchmarks.freezing_methods import table
from eeve_axolotl import rows
from eeve_axolotl.frozen_precision import hold_in_fp8
from eeve_axolotl.stages import STAGES

WAYS = ("bf16", "fp8")
ENGLISH = 0.2  # of the bytes that are trained on
RATE = 1e-3
HEADER = [
    *("base", "stage", "bf16, before", "fp8, before", "bf16, after", "fp8, after", "difference"),
    *("what fp8 saved, in bf16", "difference"),
]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True, help="bases and tokenizers are kept here")
    parser.add_argument("--base", choices=["small", "real"], default="small")
    parser.add_argument("--smollm2", type=Path, help="the folder that holds SmolLM2's GGUF")
    parser.add_argument("--stages", type=int, nargs="+", choices=[1, 3, 5], default=[1, 3, 5])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sequences", type=int, default=4, help="of a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--documents", type=int, default=40, help="held-out ones, of 500 bytes each")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def loss(model, windows: torch.Tensor) -> float:
    """Mean over the tokens of all windows."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = [float(model(input_ids=part, labels=part).loss) for part in windows.split(8)]
    return sum(each * len(part) for each, part in zip(found, windows.split(8), strict=True)) / len(windows)


def train(model, stage: int, way: str, base_size: int, data: list[torch.Tensor], windows) -> dict[str, float]:
    """The held-out loss before and after; with FP8 also that of what is saved, whose layers are in bf16."""
    frozen = rows.freeze(model, rows.row_mask(model, STAGES[stage], base_size))
    before = frozen.fingerprint()
    trunk = hold_in_fp8(model) if way == "fp8" else None
    optimizer = torch.optim.AdamW(list(frozen.trained_parameters().values()), lr=RATE, weight_decay=0.0)
    found = {"before": loss(model, windows)}
    model.train()
    for ids in data:
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    before.check(frozen.fingerprint())
    found["after"] = loss(model, windows)
    if trunk is not None:
        trunk.remove()
        found["saved"] = loss(model, windows)
    return found


def main() -> None:
    args = parse()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    base = Base(args.base, args.directory, length=args.length, sequences=args.sequences)
    make(base, args.smollm2)
    model, tokenizer, base_size = load(base, extended=True, output="first_character")
    model.model.layers.to(torch.bfloat16)
    data = list(itertools.islice(batches(base, tokenizer, seed=0, english=ENGLISH), args.steps))
    windows = new_rows.packed(tokenizer, held_out("korean", "final", args.documents), args.length)
    lines, found = [], {}
    for stage in args.stages:
        each = {way: train(copy.deepcopy(model), stage, way, base_size, data, windows) for way in WAYS}
        off = {when: each["fp8"][when] / each["bf16"]["after"] - 1 for when in ("after", "saved")}
        found[str(stage)] = {**each, "difference": off}
        cells = [f"{each[way][when]:.4f}" for when in ("before", "after") for way in WAYS]
        saved = f"{each['fp8']['saved']:.4f}"
        lines.append([args.base, stage, *cells, f"{off['after']:+.3%}", saved, f"{off['saved']:+.3%}"])
        print(*lines[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table(HEADER, lines))
    if args.json:
        print(json.dumps({args.base: found}))


if __name__ == "__main__":
    main()
