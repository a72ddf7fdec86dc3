"""What a demo starts from: its text, and a small base model that knows English. Kept if it is there already.

python examples/demo/prepare.py            the demo: Korean, on a base with SOLAR's tokenizer
python examples/demo/prepare.py --greek    the other: Greek, on a byte-level base with tied embeddings
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stories import generate

from eeve_axolotl.files import replacing

HERE = Path(__file__).resolve().parent
LOSS = re.compile(r"'loss': '?([0-9.]+)")  # as Axolotl prints it: this training is without the plugin


@dataclass(frozen=True)
class Demo:
    """A language and the base that learns it. Paths are relative to the working directory, as in the recipes."""

    name: str
    language: str  # of stories/
    base: str  # of base_model.py
    recipes: Path
    output: Path


KOREAN = Demo("Korean", "ko", "solar", Path("examples/demo"), Path("outputs/demo"))
GREEK = Demo("Greek", "el", "qwen", Path("examples/demo/greek"), Path("outputs/greek"))


def write_text(directory: Path, demo: Demo) -> None:
    """Generate the raw text of the demo, of which the pipeline makes a corpus, and what its base model is trained on."""
    shuffle = random.Random(0).shuffle
    some = list(generate(demo.language, seed=3, documents=300))
    for name, stories in {
        demo.name.lower(): list(generate(demo.language, seed=1, documents=4000)),
        "english": list(generate("en", seed=4, documents=4000)),
        # A base model has seen some of the new language; nothing here is in the corpus, or held out from it.
        "base": list(generate("en", seed=2, documents=4000)) + some,
    }.items():
        shuffle(stories)
        write_jsonl(directory / f"{name}.jsonl", stories)


def write_jsonl(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for text in texts:
            lines.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def train_base_model(demo: Demo) -> None:
    """Train a random model (see base_model.py) with the demo's base.yml."""
    random_model = [str(HERE / "base_model.py"), str(demo.output / "random"), "--base", demo.base]
    subprocess.run([sys.executable, *random_model], check=True)
    axolotl = str(Path(sys.executable).with_name("axolotl"))
    command = [axolotl, "train", str(demo.recipes / "base.yml"), "--launcher", "python"]
    path, steps = demo.output / "base.log", 0
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with path.open("w", encoding="utf-8") as log, subprocess.Popen(command, **pipes) as training:
        for line in training.stdout:
            log.write(line)
            if loss := LOSS.search(line):
                steps += 1
                if steps % 10 == 0:
                    print(f"        step {steps}  loss {float(loss[1]):.3f}", flush=True)
    if training.returncode:
        sys.exit(f"the base model's training failed: see {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--greek", action="store_const", const=GREEK, default=KOREAN, dest="demo")
    parser.add_argument("--fresh", action="store_true", help="first remove all that the demo made")
    arguments = parser.parse_args()
    demo = arguments.demo
    if arguments.fresh:
        shutil.rmtree(demo.output, ignore_errors=True)
    demo.output.mkdir(parents=True, exist_ok=True)
    if not (demo.output / "text").is_dir():
        print(f"stories in {demo.name} and English", flush=True)
        with replacing(demo.output / "text") as directory:
            write_text(directory, demo)
    done = demo.output / "base.done"
    if not done.exists():
        print("a small base model, trained on English", flush=True)
        begun = time.monotonic()
        train_base_model(demo)
        done.touch()
        print(f"        {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
