"""What the demo starts from: its text, and a small base model that knows English. Kept if it is there already.

python examples/demo/prepare.py
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from stories import generate

from eeve_axolotl.files import replacing
from eeve_axolotl.pipeline.launch import launch

HERE = Path(__file__).resolve().parent
OUTPUT = Path("outputs/demo")  # relative to the working directory, as in the recipes


def write_text(directory: Path) -> None:
    """Generate every text of the demo; what is held out is never trained on (see stories/)."""
    shuffle = random.Random(0).shuffle
    korean = list(generate("ko", seed=1, documents=4000))
    english = list(generate("en", seed=2, documents=4000))
    for name, stories in {
        "korean": korean,
        "base": english + korean[:300],  # a base model has seen some of the new language
        "stages": korean + english[:2000],  # EEVE's corpus keeps English in (paper 3.1); the share is ours
        "held_out_ko": list(generate("ko", seed=3, documents=100, held_out=True)),
        "held_out_en": list(generate("en", seed=4, documents=100, held_out=True)),
    }.items():
        shuffle(stories)
        write_jsonl(directory / f"{name}.jsonl", stories)


def write_jsonl(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for text in texts:
            lines.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def train_base_model() -> None:
    """A random model in SOLAR's shape with SOLAR's tokenizer, trained by `axolotl train examples/demo/base.yml`."""
    subprocess.run([sys.executable, str(HERE / "base_model.py"), str(OUTPUT / "random")], check=True)
    losses: list[float] = []

    def show(loss: float, _: int | None) -> None:
        losses.append(loss)
        if len(losses) % 10 == 0:
            print(f"        step {len(losses)}  loss {loss:.3f}", flush=True)

    log = OUTPUT / "base.log"
    if launch(["train", "examples/demo/base.yml", "--launcher", "python"], log, show):
        sys.exit(f"the base model's training failed: see {log}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fresh", action="store_true", help=f"remove {OUTPUT} first, with all that the demo made"
    )
    if parser.parse_args().fresh:
        shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if not (OUTPUT / "text").is_dir():
        print("stories in Korean and English", flush=True)
        with replacing(OUTPUT / "text") as directory:
            write_text(directory)
    done = OUTPUT / "base.done"
    if not done.exists():
        print("a small base model, trained on English", flush=True)
        begun = time.monotonic()
        train_base_model()
        done.touch()
        print(f"        {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
