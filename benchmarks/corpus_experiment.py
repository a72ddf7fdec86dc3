"""Does the choice of documents pay? A small model trained on a random half of a corpus, and on the chosen half.

    python benchmarks/corpus_experiment.py [--json] [--seeds 3] [--rules natural coverage] [--directory DIR]

On a small part of ../shared/corpora, so that a stage sees a new token as seldom as it does in earnest: `axolotl eeve
tokenizer` adds Korean tokens to a small English tokenizer, and a small model in SOLAR's shape is trained on English.
For each seed, `axolotl eeve corpus` chooses half of the text by each rule, and one `axolotl train` runs stages 3, 5 and
6 (its layers in full instead of QLoRA, for want of a GPU), each for the same number of tokens. What is compared is bits
per byte of other text of the same origins, protected from leaking: of all Korean, of its words that hold one of the
rarest tenth of new tokens, and of English. The seed decides the draws, and the order of training; text, tokenizer and
base model stay.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gzip
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow.parquet as pq
import yaml

from benchmarks.small_base import random_model, write_tokenizer

ROOT = Path(__file__).resolve().parent.parent
CORPORA = Path(os.environ.get("EEVE_CORPORA", ROOT.parent / "shared" / "corpora"))
BASE_TOKENS, NEW_TOKENS = 3_000, 1_000
# Of each language: text to choose from, text to measure on, and text for the base model.
MEGABYTES = {"ko": (0.8, 0.8, 0.1), "en": (0.27, 0.2, 3.0)}
LENGTH, BATCH = 256, 8
# Whatever computes with torch is a process of its own: threads that this one had started would be missing in its forks.
FORK = multiprocessing.get_context("fork")
STAGES = [3, 5, {"input_embeddings": "all", "output_embeddings": "all", "internal_layers": "full"}]
RECIPE = {
    "dataset_num_proc": 1,
    "val_set_size": 0,
    "sequence_len": LENGTH,
    "sample_packing": True,
    "pad_to_sequence_len": True,
    "num_epochs": 1000,
    "micro_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "learning_rate": 4e-3,
    "lr_scheduler": "cosine",
    "warmup_steps": 5,
    "optimizer": "adamw_torch",
    "weight_decay": 0.0,
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "attn_implementation": "sdpa",
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 20,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=["natural", "coverage"])
    parser.add_argument("--steps", type=int, default=40, help="of each stage")
    parser.add_argument("--base-steps", type=int, default=120, help="of the base model")
    parser.add_argument("--directory", type=Path, help="keep everything here, and use what is there already")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = arguments.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        os.chdir(directory)
        once("text", write_text)
        once("base_tokenizer", write_base_tokenizer)
        once("tokenizer", extend_tokenizer)
        once("base", lambda: train_base(arguments.base_steps))
        found = []
        for seed in range(arguments.seeds):
            for rule in arguments.rules:
                found.append({"seed": seed, "rule": rule, **arm(seed, rule, arguments.steps)})
                print("  ".join(f"{key} {shown(value)}" for key, value in found[-1].items()), flush=True)
    result = summary(found, arguments)
    if arguments.json:
        print(json.dumps(result))


def shown(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"


def once(name: str, make) -> None:
    """Make what lies at `name`, unless an earlier run has."""
    begin, done = time.perf_counter(), Path(f"{name}.done")
    if not done.exists():
        make()
        done.touch()
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def write_text() -> None:
    """Three parts of each language's documents, in random order: `ko`, `held_out_ko`, `base` and so on."""
    texts = {"base": []}
    for language, megabytes in MEGABYTES.items():
        with gzip.open(CORPORA / f"train_{language}.jsonl.gz", "rt", encoding="utf-8") as lines:
            everything = [json.loads(line)["text"] for line in lines]
        order = np.random.default_rng(0).permutation(len(everything))
        size = np.cumsum([len(everything[i].encode()) for i in order])
        parts = np.split(order, np.searchsorted(size, np.cumsum(megabytes) * 1e6))
        texts[language], texts[f"held_out_{language}"], base = (
            [everything[i] for i in part] for part in parts[:3]
        )
        texts["base"] += base  # a base model has seen a little of the new language
    np.random.default_rng(1).shuffle(texts["base"])
    Path("text").mkdir(exist_ok=True)
    for name, chosen in texts.items():
        with open(f"text/{name}.jsonl", "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen)


def read(name: str) -> list[str]:
    """The texts of a file of `write_text`."""
    with open(f"text/{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def write_base_tokenizer() -> None:
    """A SentencePiece BPE with byte fallback, SOLAR's type, of English."""
    write_tokenizer(Path("base_tokenizer"), read("base"), BASE_TOKENS)


def extend_tokenizer() -> None:
    """The extended tokenizer, from the Korean text to choose from."""
    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    build(
        TokenizerSettings(
            base="base_tokenizer",
            output="tokenizer",
            corpus=[{"path": "text/ko.jsonl"}],
            intermediate_vocab_size=6_000,
            new_tokens=NEW_TOKENS,
            min_count=6,
            overwrite=True,
        )
    )


def train_base(steps: int) -> None:
    """A random model of SOLAR's shape, scaled down, trained on the base's text."""
    child = FORK.Process(target=_write_random_model)
    child.start()
    child.join()
    train(
        "base",
        base_model="./random",
        tokenizer_config="./base_tokenizer",
        datasets=[{"path": "./text/base.jsonl", "type": "completion"}],
        max_steps=steps,
    )


def _write_random_model() -> None:
    model = random_model(BASE_TOKENS, LENGTH, width=64, inner=224, layers=4, heads=4, groups=1)
    model.save_pretrained("random")


def train(output: str, **keys) -> None:
    """`axolotl train` of RECIPE with `keys`, in a process of its own, forked so that Axolotl is imported once."""
    recipe = {**RECIPE, **keys, "output_dir": f"./{output}", "dataset_prepared_path": f"./{output}.prepared"}
    Path(f"{output}.yml").parent.mkdir(parents=True, exist_ok=True)
    Path(f"{output}.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    import axolotl.cli.train  # noqa: F401  what the child needs

    child = FORK.Process(target=_axolotl, args=(output,))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"training of {output} failed: see {Path(output).resolve()}.log")


def _axolotl(output: str) -> None:
    if (
        sys.platform == "linux"
    ):  # keep the buffers of a step instead of giving them back: twice as fast on a CPU
        ctypes.CDLL(None).mallopt(-4, 0)  # M_MMAP_MAX
        ctypes.CDLL(None).mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from axolotl.cli.main import main

    sys.argv = ["axolotl", "train", f"{output}.yml", "--launcher", "python"]
    main()


def arm(seed: int, rule: str, steps: int) -> dict:
    """Half of the corpus by `rule`, the stages on it, and the held-out text under the result."""
    name = f"seed{seed}/{rule}"
    once(f"{name}/corpus", lambda: choose(seed, rule, f"{name}/corpus"))
    once(
        f"{name}/model",
        lambda: train(
            f"{name}/model",
            base_model="./base",
            tokenizer_config="./tokenizer",
            plugins=["eeve_axolotl.EEVEPlugin"],
            trainer_cls="eeve_axolotl.trainer.EEVETrainer",
            eeve={"stages": STAGES, "save_stages": "none"},
            datasets=[{"path": f"./{name}/corpus", "type": "completion", "split": "train"}],
            max_steps=steps,
            seed=seed,
        ),
    )
    table = pq.read_table(f"{name}/corpus/tokens.parquet")
    rare = rarest(table["in_corpus"].to_numpy())
    first = table["id"][0].as_py()
    wanted = frozenset(first + int(token) for token in rare)
    with FORK.Pool(1) as apart:
        korean = apart.apply(bits, (f"{name}/model", read("held_out_ko"), wanted))
        english = apart.apply(bits, (f"{name}/model", read("held_out_en")))
    seen = int(table["chosen"].to_numpy()[rare].sum())
    return {"rare_seen": seen, **korean, "english": english["all"]}


def choose(seed: int, rule: str, output: str) -> None:
    """Half of the corpus by `rule`; what is measured on does not leak into it."""
    from eeve_axolotl.corpus.build import build
    from eeve_axolotl.corpus.settings import CorpusSettings

    mix = {
        "korean": {"share": 0.75, "language": "ko", "rule": rule, "sources": [{"path": "text/ko.jsonl"}]},
        "english": {"share": 0.25, "language": "en", "sources": [{"path": "text/en.jsonl"}]},
    }
    build(
        CorpusSettings(
            tokenizer="tokenizer",
            output=output,
            work="work",
            seed=seed,
            mix=mix,
            budget={"share": 0.5},
            overwrite=True,
            held_out={"share": 0, "protect": [{"path": f"text/held_out_{each}.jsonl"} for each in MEGABYTES]},
            write={"shards": 1, "sequence_len": LENGTH},
        )
    )


def rarest(in_corpus: np.ndarray) -> np.ndarray:
    """The rarest tenth of the new tokens that the corpus has."""
    there = np.flatnonzero(in_corpus)
    return there[np.argsort(in_corpus[there], kind="stable")[: len(there) // 10]]


def bits(model: str, texts: list[str], rare: frozenset[int] = frozenset()) -> dict:
    """Bits per byte of `texts` under the model in directory `model`, and of their words that hold a token of `rare`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    all_nats = all_bytes = rare_nats = rare_bytes = rare_words = 0.0
    for word, nats in words_and_nats(network.eval(), tokenizer, texts):
        size = sum(piece_bytes(piece) for piece in tokenizer.convert_ids_to_tokens(word))
        all_nats, all_bytes = all_nats + nats, all_bytes + size
        if rare.intersection(word):
            rare_nats, rare_bytes, rare_words = rare_nats + nats, rare_bytes + size, rare_words + 1
    found = {"all": all_nats / all_bytes / math.log(2)}
    if rare_bytes:
        found |= {"rare_words": rare_nats / rare_bytes / math.log(2), "number_of_rare_words": int(rare_words)}
    return found


def piece_bytes(piece: str) -> int:
    """Bytes of text that a SentencePiece token stands for."""
    return 1 if piece.startswith("<0x") else len(piece.replace("▁", " ").encode())


def words_and_nats(model, tokenizer, texts: list[str]) -> Iterator[tuple[list[int], float]]:
    """Each word of `texts` as its token ids, with the negative log-likelihood of them all, in nats.

    A word begins at a blank or a line's end. Texts are read in windows of LENGTH tokens that share one.
    """
    import torch

    windows = [
        [tokenizer.bos_token_id, *ids][start : start + LENGTH]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), LENGTH - 1)
    ]
    windows.sort(key=len)
    begins = {
        token for piece, token in tokenizer.get_vocab().items() if piece.startswith("▁") or piece == "<0x0A>"
    }
    for first in range(0, len(windows), 16):
        batch = windows[first : first + 16]
        ids = torch.full((len(batch), max(map(len, batch))), -100)
        for row, window in enumerate(batch):
            ids[row, : len(window)] = torch.tensor(window)
        with torch.no_grad():
            # Padding stands behind the text, so nothing of the text attends to it.
            logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        for window, nats in zip(batch, losses.tolist(), strict=True):
            starts = [at for at in range(1, len(window)) if at == 1 or window[at] in begins]
            for start, end in zip(starts, [*starts[1:], len(window)], strict=True):
                yield window[start:end], sum(nats[start - 1 : end - 1])


def summary(found: list[dict], arguments: argparse.Namespace) -> dict:
    """Each rule's difference from the first rule, seed by seed (negative: fewer bits, better)."""
    against = arguments.rules[0]
    by = {(each["seed"], each["rule"]): each for each in found}
    result = {
        "steps_a_stage": arguments.steps,
        "tokens_a_stage": arguments.steps * LENGTH * BATCH,
        "arms": found,
    }
    for rule in arguments.rules[1:]:
        for key in ("all", "rare_words", "english"):
            gaps = [by[seed, rule][key] - by[seed, against][key] for seed in range(arguments.seeds)]
            result[f"{rule}_minus_{against}_{key}"] = [round(gap, 4) for gap in gaps]
            print(
                f"{rule} - {against}, bits per byte, {key}: mean {np.mean(gaps):+.4f}, "
                f"from {min(gaps):+.4f} to {max(gaps):+.4f} over {len(gaps)} seeds"
            )
    return result


if __name__ == "__main__":
    main()
