"""What other programs make of a tokenizer's directory, for `real_tokenizers.py`. None of them is ours."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import llama_server

Ids = list[list[int]]
Client = Callable[[Path, list[str]], Ids | None]
"""A directory and texts to the texts' ids, without special tokens around them; None where it cannot read that kind."""

_NODE = """
import { readFileSync } from "fs";
const { library, directory, texts } = JSON.parse(readFileSync(0, "utf-8"));
const { Tokenizer } = await import(library);
const read = (name) => JSON.parse(readFileSync(`${directory}/${name}`, "utf-8"));
const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
const ids = texts.map((text) => Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids, Number));
console.log(JSON.stringify(ids));
"""


def library(directory: Path, texts: list[str]) -> Ids:
    """The tokenizers library."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def transformers(directory: Path, texts: list[str]) -> Ids:
    """AutoTokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def sentencepiece(directory: Path, texts: list[str]) -> Ids | None:
    """SentencePiece, on `tokenizer.model`."""
    from sentencepiece import SentencePieceProcessor

    model = directory / "tokenizer.model"
    if not model.is_file():
        return None
    return SentencePieceProcessor(model_file=str(model)).encode(texts)


def node(package: Path) -> Client:
    """`@huggingface/tokenizers`, the tokenizers of transformers.js."""

    def ids(directory: Path, texts: list[str]) -> Ids | None:
        given = {
            "library": str(package / "dist" / "tokenizers.mjs"), "directory": str(directory), "texts": texts,
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            script = Path(place) / "ids.mjs"
            script.write_text(_NODE)
            command = ["node", "--max-old-space-size=4096", str(script)]
            done = subprocess.run(
                command, input=json.dumps(given), capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise RuntimeError(
                next((line for line in done.stderr.splitlines() if "Error" in line), done.stderr[-200:])
            )
        return json.loads(done.stdout)

    return ids


def llama_cpp(pattern: str | None) -> Client:
    """llama.cpp, through a GGUF of a tiny random Llama with the directory's tokenizer."""

    def ids(directory: Path, texts: list[str]) -> Ids | None:
        if not (directory / "tokenizer.model").is_file() and pattern is None:
            return None
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "tiny.gguf"
            write_gguf(file, directory, pattern)
            bodies = [{"content": text, "add_special": False, "parse_special": True} for text in texts]
            answers = llama_server.ask(file, [("tokenize", body) for body in bodies], context=64)
        return [answer["tokens"] for answer in answers]

    return ids


def write_gguf(file: Path, directory: Path, pattern: str | None) -> None:
    """A Llama of one layer, 32 wide, with random weights and the tokenizer in `directory`, as llama.cpp's converter
    writes it: from `tokenizer.model` where there is one, else from `tokenizer.json`."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    size = (
        _sentencepiece_vocabulary(writer, directory)
        if (directory / "tokenizer.model").is_file()
        else _bpe_vocabulary(writer, directory, pattern or "")
    )
    random = np.random.default_rng(0)
    square = {f"blk.0.attn_{each}.weight": (32, 32) for each in ("q", "k", "v", "output")}
    square |= {f"blk.0.ffn_{each}.weight": (32, 32) for each in ("gate", "up", "down")}
    norms = dict.fromkeys(("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"), (32,))
    for name, shape in {"token_embd.weight": (size, 32), **square, **norms}.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _sentencepiece_vocabulary(writer, directory: Path) -> int:
    from gguf import TokenType
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    kinds = {
        "is_unknown": TokenType.UNKNOWN, "is_control": TokenType.CONTROL, "is_unused": TokenType.UNUSED,
        "is_byte": TokenType.BYTE,
    }  # fmt: skip
    size = model.vocab_size()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(i) for i in range(size)])
    writer.add_token_scores([model.get_score(i) for i in range(size)])
    writer.add_token_types(
        [
            next((kind for is_of, kind in kinds.items() if getattr(model, is_of)(i)), TokenType.NORMAL)
            for i in range(size)
        ]
    )
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    writer.add_add_space_prefix(True)
    return size


def _bpe_vocabulary(writer, directory: Path, pattern: str) -> int:
    from gguf import TokenType

    state = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in state["added_tokens"]}
    of_id = {i: token for token, i in state["model"]["vocab"].items()}
    of_id |= {i: token["content"] for i, token in added.items()}
    size = max(of_id) + 1
    types = []
    for i in range(size):
        kind = TokenType.NORMAL if i in of_id else TokenType.UNUSED
        if i in added:
            kind = TokenType.CONTROL if added[i]["special"] else TokenType.USER_DEFINED
        types.append(kind)
    merges = state["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pattern)
    writer.add_token_list([of_id.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    return size


def available(node_package: Path | None, pattern: str | None) -> dict[str, Client]:
    """The clients at hand, by name."""
    clients: dict[str, Client] = {"AutoTokenizer": transformers, "SentencePiece": sentencepiece}
    if node_package is not None:
        clients["Node"] = node(node_package)
    if all(importlib.util.find_spec(name) for name in ("gguf", "xllamacpp")):
        clients["llama.cpp"] = llama_cpp(pattern)
    return clients
