"""All seven stages through the `axolotl` command on a CPU: what each changed in the weights on disk."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from eeve_axolotl import axolotl_versions, embeddings
from eeve_axolotl.records import HISTORY, read_record
from tests.conftest import corpus, tiny_llama
from tests.e2e.helpers import run, write_recipe

pytestmark = pytest.mark.e2e

BASE = 32000
INPUTS, OUTPUTS = "model.embed_tokens.weight", "lm_head.weight"

# Figure 4 of the paper, written out again: rows of the inputs, rows of the outputs, internal layers.
TABLE = {
    1: ("new", "none", "frozen"),
    2: ("none", "new", "frozen"),
    3: ("new", "new", "frozen"),
    4: ("none", "all", "frozen"),
    5: ("new", "all", "frozen"),
    6: ("all", "all", "qlora"),
    7: ("none", "none", "qlora"),
}


@dataclass
class Chain:
    """What the seven runs left: weights before and after each stage, its log, and its directory."""

    directory: Path
    size: int
    weights: dict[int, dict[str, torch.Tensor]]
    logs: dict[int, str]

    def before_and_after(self, stage: int):
        return self.weights[stage - 1], self.weights[stage]


@pytest.fixture(scope="module")
def chain(tmp_path_factory, base_tokenizer_directory) -> Chain:
    sample = corpus("sample_ko_en.jsonl.gz")
    directory = tmp_path_factory.mktemp("chain")
    shutil.copytree(base_tokenizer_directory, directory / "base")
    tiny_llama(BASE).save_pretrained(directory / "base")
    with gzip.open(sample, "rt", encoding="utf-8") as lines:
        text = "".join(itertools.islice(lines, 200))
    (directory / "text.jsonl").write_text(text, encoding="utf-8")
    settings = {
        "base": "base",
        "output": "tokenizer",
        "corpus": [{"path": "text.jsonl"}],
        "new_tokens": 1000,
        "min_count": 2,
    }
    (directory / "tokenizer.yml").write_text(yaml.safe_dump(settings))
    run(directory, "eeve", "tokenizer", "tokenizer.yml")

    weights, logs = {0: started(directory)}, {}
    latest = "./base"
    for stage in TABLE:
        recipe = write_recipe(directory, stage, latest)
        logs[stage] = run(directory, "train", recipe, "--launcher", "python")
        latest = f"./stage{stage}"
        if stage >= 6:
            run(directory, "merge-lora", recipe)
            latest += "/merged"
        weights[stage] = load_file(directory / latest / "model.safetensors")
    return Chain(directory, len(weights[0][INPUTS]), weights, logs)


def started(directory: Path) -> dict[str, torch.Tensor]:
    """The base's own weights, with the new rows as initialisation starts them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = load_file(directory / "base" / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer")
    model = AutoModelForCausalLM.from_pretrained(directory / "base")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings.initialise(model, tokenizer, BASE, BASE)
    for name in (INPUTS, OUTPUTS):
        weights[name] = torch.cat([weights[name], model.state_dict()[name][BASE:]])
    return weights


def same_bits(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """For each row, whether all its bits are the same."""
    assert one.dtype == other.dtype == torch.float32
    return (one.view(torch.int32) == other.view(torch.int32)).reshape(len(one), -1).all(1)


def test_the_tokenizer_has_about_a_thousand_new_tokens(chain):
    assert 900 <= chain.size - BASE <= 1000


@pytest.mark.parametrize(("name", "word"), [(INPUTS, 0), (OUTPUTS, 1)], ids=["inputs", "outputs"])
@pytest.mark.parametrize("stage", TABLE)
def test_exactly_the_rows_of_the_stage_move(chain, stage, name, word):
    before, after = (weights[name] for weights in chain.before_and_after(stage))
    assert before.shape == after.shape == (chain.size, before.shape[1])
    first_trained = {"none": chain.size, "new": BASE, "all": 0}[TABLE[stage][word]]
    still = same_bits(before, after)
    assert still[:first_trained].all(), f"{(~still[:first_trained]).sum()} frozen rows moved"
    # Weight decay alone moves every row that trains.
    assert not still[first_trained:].any(), f"{still[first_trained:].sum()} trained rows did not move"


@pytest.mark.parametrize("stage", TABLE)
def test_internal_layers_move_in_the_qlora_stages_alone(chain, stage):
    before, after = chain.before_and_after(stage)
    internal = before.keys() - {INPUTS, OUTPUTS}
    assert after.keys() == before.keys() and len(internal) == 19
    adapted = {name for name in internal if name.endswith("_proj.weight")}
    moved = {name for name in internal if not same_bits(before[name], after[name]).all()}
    assert moved == (adapted if TABLE[stage][2] == "qlora" else set())


@pytest.mark.parametrize("stage", TABLE)
def test_each_stage_leaves_its_record(chain, stage):
    record = json.loads((chain.directory / f"stage{stage}" / "eeve_stage.json").read_text(encoding="utf-8"))
    inputs, outputs, layers = TABLE[stage]
    assert record["stage"] == str(stage)
    assert record["trains"] == {
        "input_embeddings": inputs,
        "output_embeddings": outputs,
        "internal_layers": layers,
    }
    assert (record["base_vocab_size"], record["vocab_size"]) == (BASE, chain.size)
    trained = {"none": 0, "new": chain.size - BASE, "all": chain.size}
    for matrix, word in (("input_embeddings", inputs), ("output_embeddings", outputs)):
        assert record[matrix]["rows_trained"] == trained[word]
        assert record[matrix]["rows_frozen"] == chain.size - trained[word]
    assert record["moved"] == {}
    assert record["head_loss"] == "chunked"
    assert record["fingerprint_before"] == record["fingerprint_after"] != {}
    assert record["optimizer_state_bytes"] > 0
    assert (record["initialised"] is None) == (stage > 1)
    assert not (chain.directory / f"stage{stage}" / "eeve_stage.failed.json").exists()


@pytest.mark.parametrize("stage", [6, 7])
def test_a_plain_merge_is_recorded_where_axolotl_asks_for_it(chain, stage):
    """0.19 does not: there a chain records it, and the stage after it finds the record beside the adapter."""
    output = chain.directory / f"stage{stage}"
    record = read_record(output / "merged")
    if axolotl_versions.release() < axolotl_versions.HOOKS_SINCE["post_lora_merge"]:
        assert record is None
    else:
        assert record["merged_from"] == read_record(output)["weights"]
        assert (output / "merged" / HISTORY).read_bytes() == (output / HISTORY).read_bytes()


def test_only_the_first_stage_initialises_rows(chain):
    assert f"initialised {chain.size - BASE:,} new rows" in chain.logs[1]
    for stage in range(2, 8):
        assert "initialised no rows" in chain.logs[stage]


@pytest.mark.parametrize("stage", [2, 4])
def test_optimiser_state_exists_for_trained_rows_alone(chain, stage):
    record = json.loads((chain.directory / f"stage{stage}" / "eeve_stage.json").read_text(encoding="utf-8"))
    hidden = chain.weights[0][INPUTS].shape[1]
    rows = {2: chain.size - BASE, 4: chain.size}[stage]
    assert record["parameters_trained"] == rows * hidden
    assert 2 * 4 * rows * hidden <= record["optimizer_state_bytes"] < 2 * 4 * rows * hidden + 1024
