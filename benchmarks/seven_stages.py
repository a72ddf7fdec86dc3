"""Are seven stages worth it? The demo's model trained by all of them and by fewer, on the same number of tokens.

    make demo                      # makes the base model, the texts and the tokenizer
    python benchmarks/seven_stages.py    # prints the table of benchmarks/RESULTS.md
    python benchmarks/seven_stages.py --ways seven 6 --seeds 1 2 3 --steps 140

Every way starts from the demo's base and reads its text in the same batches of 2,048 tokens, with its recipes'
settings. A way's steps are divided evenly among its stages. Seconds are of training alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from itertools import groupby
from pathlib import Path

import yaml

from eeve_axolotl.evaluation.inspection import evaluate
from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.pipeline.chain import Chain
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.stages import STAGES, Layers

DEMO, RECIPES = Path("outputs/demo"), Path("examples/demo")
FULL = {"input_embeddings": "all", "output_embeddings": "all", "internal_layers": "full"}
WAYS = {
    "seven": [1, 2, 3, 4, 5, 6, 7],
    "3-4-6-7": [3, 4, 6, 7],  # what is left of them where embeddings are tied
    "6-7": [6, 7],
    "6": [6],
    "full": [FULL],  # every parameter, as continued pre-training usually does
}


def is_adapter(stage) -> bool:
    return stage in STAGES and STAGES[stage].internal_layers is Layers.QLORA


def write_recipes(way: str, steps: int, seed: int, place: Path) -> list[str]:
    """A recipe for each run of the way; stages without adapters that follow one another share a run."""
    stages = WAYS[way]
    share = [steps // len(stages) + (number < steps % len(stages)) for number in range(len(stages))]
    base, written = str(DEMO / "base"), []
    groups = groupby(zip(stages, share, strict=True), key=lambda each: each[0] if is_adapter(each[0]) else 0)
    for number, group in groups:
        entries = [
            {**(stage if isinstance(stage, dict) else {"stage": stage}), "max_steps": count}
            for stage, count in group
        ]
        recipe = yaml.safe_load((RECIPES / f"stage{number or 5}.yml").read_text(encoding="utf-8"))
        output = place / f"run{len(written) + 1}"
        recipe |= {"base_model": base, "output_dir": str(output), "seed": seed, "eeve": {"stages": entries}}
        path = place / f"{output.name}.yml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        written.append(str(path))
        base = str(output / "merged") if number else str(output)
    return written


def train(way: str, steps: int, seed: int) -> dict:
    """Train one way (what is there already is not trained again) and return its figures."""
    place = Path("outputs/stages") / f"{way}.steps{steps}.seed{seed}"
    place.mkdir(parents=True, exist_ok=True)
    runs = write_recipes(way, steps, seed, place)
    chain = Chain("", PipelineSettings(output=str(place / "pipeline"), runs=runs, launcher="python"))
    chain.run()
    histories = [
        json.loads((each.directory / "eeve_history.json").read_text())
        for run in chain.runs
        for each in run.stages
    ]
    texts = {
        name: str(DEMO / f"text/held_out_{code}.jsonl")
        for name, code in (("Korean", "ko"), ("English", "en"))
    }
    found = evaluate(
        str(chain.runs[-1].result),
        EvaluationSettings(texts=texts, prompts=[]),
        tokenizer=str(DEMO / "tokenizer"),
    )["texts"]
    return {
        "seconds": sum(each["seconds"] for each in histories),
        "Korean": found["Korean"]["bits_per_byte"],
        "English": found["English"]["bits_per_byte"],
        "new tokens": found["Korean"]["new_tokens"]["accuracy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument(
        "--steps", type=int, default=280, help="of each way, 2,048 tokens each (the demo's: 280)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    options = parser.parse_args()
    if not (DEMO / "tokenizer").is_dir():
        sys.exit(f"{DEMO}/tokenizer is not there; run `make demo` first")
    found = {way: [train(way, options.steps, seed) for seed in options.seeds] for way in options.ways}
    print(
        f"\n{options.steps} steps of 2,048 tokens a way, seeds {', '.join(map(str, options.seeds))}; means:\n"
    )
    print("| way | Korean bits/byte | English bits/byte | new tokens predicted | seconds of training |")
    print("| --- | --- | --- | --- | --- |")
    for way, each in found.items():
        mean = {key: statistics.mean(figures[key] for figures in each) for key in each[0]}
        spread = [f" ({min(f[key] for f in each):.3f} to {max(f[key] for f in each):.3f})" if len(each) > 1 else ""
                  for key in ("Korean", "English")]  # fmt: skip
        print(
            f"| {way} | {mean['Korean']:.3f}{spread[0]} | {mean['English']:.3f}{spread[1]} | "
            f"{mean['new tokens']:.1%} | {mean['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
