"""The demo: all seven stages through `axolotl train` on a CPU, and a table of what each did.

python examples/demo/run.py

Everything is written under outputs/demo. A part that an earlier run finished is kept; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import report
from stories import generate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUTPUT = Path("outputs/demo")  # relative to the root, as in the recipes
TEXT = OUTPUT / "text"
STAGES = range(1, 8)
MERGED = (6, 7)  # stages that train adapters

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",  # the recipes are for a CPU
    # glibc returns the large buffers of every step to the system; kept, a step takes half the time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}

TRAINED = re.compile(r"'loss': '?([0-9.]+)")


def write_text() -> None:
    """Generate every text of the demo; what is held out is never trained on (see stories/)."""
    shuffle = random.Random(0).shuffle
    korean = list(generate("ko", seed=1, documents=4000))
    english = list(generate("en", seed=2, documents=4000))
    # A base model has seen some Korean; EEVE's corpus keeps English in (paper 2.2).
    for name, stories in {
        "korean": korean,
        "base": english + korean[:300],
        "stages": korean + english[: len(korean) // 2],
        "held_out_ko": generate("ko", seed=3, documents=100, held_out=True),
        "held_out_en": generate("en", seed=4, documents=100, held_out=True),
    }.items():
        stories = list(stories)
        shuffle(stories)
        report.write_jsonl(TEXT / f"{name}.jsonl", ({"text": story} for story in stories))


def axolotl(*arguments: str, log: Path) -> None:
    """Run `axolotl ...`, its output into `log`, its training steps shown; stop the demo if it fails."""
    command = [str(Path(sys.executable).with_name("axolotl")), *arguments]
    with log.open("w", encoding="utf-8", errors="replace") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        steps = 0
        for line in process.stdout:
            out.write(line)
            for loss in TRAINED.findall(line):
                steps += 1
                if sys.stdout.isatty() or steps % 10 == 0:
                    _show(f"    step {steps:3d}  loss {float(loss):.3f}")
        if process.wait():
            sys.exit(f"`axolotl {' '.join(arguments)}` failed; the end of {log}:\n{_tail(log)}")


def _show(line: str) -> None:
    """Show progress: in place on a terminal, a line each in a log."""
    if sys.stdout.isatty():
        print("\r" + line, end="", flush=True)
    else:
        print(line.rstrip(), flush=True)


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def make_base_model() -> None:
    """The tokenizer and a random model, then English into it."""
    subprocess.run([sys.executable, str(HERE / "base_model.py"), str(OUTPUT / "random")], check=True)
    axolotl("train", "examples/demo/base.yml", "--launcher", "python", log=OUTPUT / "logs/base.log")


def make_tokenizer() -> None:
    axolotl("eeve", "tokenizer", "examples/demo/tokenizer.yml", log=OUTPUT / "logs/tokenizer.log")


def train_stage(number: int) -> None:
    """Train one stage, and merge its adapters if it has any."""
    recipe = f"examples/demo/stage{number}.yml"
    axolotl("train", recipe, "--launcher", "python", log=OUTPUT / f"logs/stage{number}.log")
    if number in MERGED:
        axolotl("merge-lora", recipe, log=OUTPUT / f"logs/stage{number}.merge.log")


def parts() -> list[tuple[str, str, callable, list[Path]]]:
    """Name, what it does, how, and the directories that it writes, in order."""
    return [
        ("text", "Korean and English stories", write_text, [TEXT]),
        (
            "base",
            "a small base model, trained on English",
            make_base_model,
            [OUTPUT / "random", OUTPUT / "base"],
        ),
        ("tokenizer", "the extended tokenizer", make_tokenizer, [OUTPUT / "tokenizer"]),
        *(
            (f"stage{n}", f"stage {n} of 7", lambda n=n: train_stage(n), [OUTPUT / f"stage{n}"])
            for n in STAGES
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fresh", action="store_true", help=f"remove {OUTPUT} and begin anew")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(ENVIRONMENT)
    if arguments.fresh:
        shutil.rmtree(OUTPUT, ignore_errors=True)
    (OUTPUT / "logs").mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    todo = parts()
    for number, (name, what, make, directories) in enumerate(todo, start=1):
        done = OUTPUT / f"logs/{name}.done"
        heading = f"[{number:2d}/{len(todo)}] {what}"
        if done.exists():
            print(f"{heading}: kept from an earlier run", flush=True)
            continue
        print(heading, flush=True)
        for directory in directories:  # of a run that was interrupted
            shutil.rmtree(directory, ignore_errors=True)
        if name == "text":
            TEXT.mkdir(parents=True)
        since = time.monotonic()
        make()
        done.touch()
        _show(f"    {time.monotonic() - since:.0f} s".ljust(30) + ("\n" if sys.stdout.isatty() else ""))
    print("evaluating on 100 held-out stories of each language", flush=True)
    report.show(OUTPUT)
    print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes. Logs: {OUTPUT}/logs")


if __name__ == "__main__":
    main()
