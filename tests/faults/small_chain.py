"""A whole chain that takes a few seconds: our own commands as they are, and stand-ins for `axolotl train` and its merge.

Tokenizer, base and extended figures, stage 3, stage 6 and its merge, their figures, and the report.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from pathlib import Path

import yaml

from eeve_axolotl.files import sha256, write_json
from eeve_axolotl.pipeline import launch
from eeve_axolotl.records import HISTORY, MARK, RECORD, TEXT, WHOLE, weights_sha256
from tests.faults.grounds import hashes, plant, prepared_text

KEPT = ("", "pipeline", "out3", "out6", "out6/merged", "prepared")  # where a user has files of their own
RESULTS = ("words/tokenizer.json", "words/eeve_tokenizer.json", "out3/model.safetensors", "out3/eeve_stage.json",
           "out6/adapter_model.safetensors", "out6/merged/model.safetensors", "out6/merged/eeve_stage.json",
           "pipeline/evaluation/base.json", "pipeline/evaluation/stage3.json", "pipeline/evaluation/stage6.json",
           "pipeline/report/report.md")  # fmt: skip


def make(directory: Path) -> dict[str, str]:
    """Everything that the chain starts from; returns the hashes of a user's files that lie about in it."""
    from tests.conftest import tiny_llama

    base = directory / "base"
    size = _tokenizer(base)
    tiny_llama(size, hidden_size=16, num_hidden_layers=1).save_pretrained(base)
    sentences = ("안녕 학교는 지금 조용하다. ", "오늘은 날씨가 좋네요. ")
    for name, times in (("corpus.jsonl", 20), ("text.jsonl", 5), ("held.jsonl", 2)):
        lines = (json.dumps({"text": each * times}, ensure_ascii=False) + "\n" for each in sentences)
        (directory / name).write_text("".join(lines))
    tokenizer = {"base": "base", "output": "words", "corpus": [{"path": "corpus.jsonl"}], "new_tokens": 6,
                 "intermediate_vocab_size": 60, "min_count": 1}  # fmt: skip
    evaluate = {"texts": {"Korean": "held.jsonl"}, "prompts": [], "max_length": 64}
    chain = {"output": "pipeline", "tokenizer": "tokenizer.yml", "runs": ["stage3.yml", "stage6.yml"]}
    _yaml(directory / "tokenizer.yml", tokenizer)
    _yaml(directory / "pipeline.yml", {**chain, "evaluate": evaluate})
    for stage, start, more in ((3, "base", {}), (6, "out3", {"adapter": "qlora"})):
        cfg = {
            "base_model": start, "tokenizer_config": "words", "output_dir": f"out{stage}", "eeve": {"stage": stage},
            "datasets": [{"path": "text.jsonl", "type": "completion"}], "dataset_prepared_path": "prepared", **more,
        }  # fmt: skip
        _yaml(directory / f"stage{stage}.yml", cfg)
    for place in KEPT:
        plant(directory / place / "mine")
    return {name: each for name, each in hashes(directory).items() if "mine/" in name}


def run(*arguments: str) -> None:
    """`axolotl eeve run pipeline.yml`, its commands in this process."""
    launch.launch = _launch
    _command("run", "pipeline.yml", *arguments)


def results(directory: Path) -> dict[str, str]:
    """The hashes of all that the chain makes and that follows from its inputs alone."""
    return {name: sha256(directory / name) for name in RESULTS if (directory / name).is_file()}


def _yaml(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True))


def _tokenizer(directory: Path) -> int:
    """A SentencePiece-type BPE with byte fallback and a few letters; returns its size."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefghijklmnopqrstuvwxyz.,",
    ]
    model = models.BPE(
        {token: n for n, token in enumerate(tokens)}, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(directory)
    return len(tokens)


def _command(*arguments: str) -> None:
    from eeve_axolotl.cli import eeve

    eeve(list(arguments))


def _launch(arguments: list[str], log: Path, on_step) -> int:
    """In the place of a process: its output goes into the log, and its exit status comes back."""
    with log.open("w") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            if arguments[0] == "eeve":
                _command(*arguments[1:])
            else:
                cfg = yaml.safe_load(Path(arguments[1]).read_text())
                {"train": _train, "merge-lora": _merge}[arguments[0]](cfg, arguments)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except OSError as error:  # as Axolotl ends
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


def _train(cfg: dict, arguments: list[str]) -> None:
    """Writes as a training does: the prepared text, a checkpoint, weights that follow from both, history, record."""
    text = prepared_text(cfg, arguments)
    output = Path(cfg["output_dir"])
    checkpoint = output / "checkpoint-1"
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_json(checkpoint / TEXT, {"step": 1})
    (checkpoint / WHOLE).touch()
    start = Path(cfg["base_model"])
    if cfg.get("adapter"):
        _weights(output / "adapter_model.safetensors", start, text)
    else:
        _model(output, start, text)
    write_json(output / HISTORY, {"steps": [{"step": 1, "loss": 1.0}], "seconds": 1.0, "tokens_per_step": 8})
    write_json(
        output / RECORD, {"stage": str(cfg["eeve"]["stage"]), "steps": 1, "weights": weights_sha256(output)}
    )


def _merge(cfg: dict, arguments: list[str]) -> None:
    output = Path(cfg["output_dir"])
    (output / "merged").mkdir(exist_ok=True)
    _model(output / "merged", Path(cfg["base_model"]), (output / "adapter_model.safetensors").read_bytes())


def _model(output: Path, start: Path, text: bytes) -> None:
    config = json.loads((start / "config.json").read_text())
    manifest = json.loads(Path("words/eeve_tokenizer.json").read_text())
    config["vocab_size"] = manifest["vocab_size"]
    config[MARK] = {key: manifest[key] for key in ("base_vocab_size", "vocab_size")}
    (output / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path("words", file), output / file)
    _weights(output / "model.safetensors", start, text, config["vocab_size"])


def _weights(path: Path, start: Path, text: bytes, rows: int = 0) -> None:
    """The weights of `start`, with rows for new tokens, moved by what the text says."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    source = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8]))
    tensors = load_file(start / "model.safetensors")
    for name, tensor in tensors.items():
        missing = rows - len(tensor) if name.endswith(("embed_tokens.weight", "lm_head.weight")) else 0
        if missing > 0:
            tensor = np.concatenate([tensor, tensor[:missing]])
        tensors[name] = tensor + source.normal(0, 0.01, tensor.shape).astype(tensor.dtype)
    save_file(tensors, path)
