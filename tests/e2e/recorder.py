"""A plugin beside ours that writes down what Axolotl calls, in order, and what holds at that moment."""

import json
from pathlib import Path

from axolotl.integrations.base import BasePlugin

CALLS = "calls.jsonl"  # in the working directory


def note(hook: str, **what) -> None:
    with open(CALLS, "a", encoding="utf-8") as calls:
        calls.write(json.dumps({"hook": hook, **what}) + "\n")


def facts(model) -> dict:
    """How many rows the embeddings have, and whether adapters are in the layers."""
    return {
        "rows": model.get_input_embeddings().weight.shape[0],
        "adapters": any("lora_A" in name for name, _ in model.named_parameters()),
    }


def files(directory: str | Path) -> dict:
    return {"files": sorted(path.name for path in Path(directory).iterdir())}


class Recorder(BasePlugin):
    def register(self, cfg):
        note("register", stage=cfg["eeve"]["stage"])

    def pre_model_load(self, cfg):
        note("pre_model_load")

    def post_model_build(self, cfg, model):
        note("post_model_build", **facts(model))

    def pre_lora_load(self, cfg, model):
        note("pre_lora_load", **facts(model))

    def post_model_load(self, cfg, model):
        note("post_model_load", **facts(model))

    def get_trainer_cls(self, cfg):
        note("get_trainer_cls")

    def post_trainer_create(self, cfg, trainer):
        note("post_trainer_create", trainer=type(trainer).__name__, step=trainer.state.global_step)

    def post_train(self, cfg, model):
        note("post_train")

    def post_train_unload(self, cfg):
        note("post_train_unload", **files(cfg.output_dir))

    def post_lora_merge(self, cfg, adapter_path, output_path):
        note("post_lora_merge", **files(output_path))
