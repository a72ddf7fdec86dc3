"""Which Axolotl hook calls what. No logic of its own.

Axolotl calls, in order: register, pre_model_load, post_model_build (rows as in the checkpoint), then it resizes
the embeddings, pre_lora_load (rows as the tokenizer wants them), adapters, post_model_load,
get_trainer_cls, train, post_train (twice), post_train_unload. `tests/test_contract.py` holds the hooks' forms to Axolotl's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from axolotl.integrations.base import BasePlugin, PluginManager

from eeve_axolotl import axolotl_versions, checks, sharding
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.preflight import PLUGIN, Recipe, stop_at_first
from eeve_axolotl.records import record_merge
from eeve_axolotl.run import StageRun
from eeve_axolotl.tokenizer_files import travel_with_tokenizers


def stops_plainly(hook: Callable) -> Callable:
    """End the run with the error's one sentence and status 1 instead of a traceback."""

    @functools.wraps(hook)
    def wrapper(*args, **kwargs):
        try:
            return hook(*args, **kwargs)
        except EEVEError as error:
            raise SystemExit(f"eeve_axolotl: {error}") from None

    return wrapper


class EEVEPlugin(BasePlugin):
    """Trains one stage of EEVE: `plugins: [eeve_axolotl.EEVEPlugin]` and an `eeve:` block."""

    run: StageRun  # from `register` on

    def get_input_args(self) -> str:
        """The schema of `eeve:`."""
        return "eeve_axolotl.args.EEVEArgs"

    @stops_plainly
    def register(self, cfg) -> None:
        """Check the config while nothing is loaded yet, and set what the stage implies."""
        self.run = StageRun.from_config(cfg)
        plugins = PluginManager.get_instance().plugins
        stop_at_first(Recipe(cfg, self.run.settings, {PLUGIN: self, **plugins}))
        self.run.set_implied_keys(cfg)
        travel_with_tokenizers()

    @stops_plainly
    def pre_model_load(self, cfg) -> None:
        """Refuse an attention that this machine does not have; `register` also runs where nothing is trained."""
        checks.check_attention(cfg)

    @stops_plainly
    def post_model_build(self, cfg, model) -> None:
        """Note how many rows the checkpoint has, before Axolotl resizes them."""
        sharding.check_loaded(model)
        self.run.note_checkpoint(model)

    @stops_plainly
    def pre_lora_load(self, cfg, model) -> None:
        """Initialise the rows that the checkpoint does not have; keep adapters off the embeddings."""
        self.run.initialise_new_rows(cfg, model)
        self.run.keep_adapters_off(cfg, model)

    @stops_plainly
    def post_model_load(self, cfg, model) -> None:
        """Freeze what the stage does not train."""
        checks.check_head(cfg, model)
        self.run.freeze(model)

    def get_trainer_cls(self, cfg):
        """The trainer that keeps frozen rows frozen and proves it."""
        from eeve_axolotl.trainer import EEVETrainer

        return EEVETrainer

    @stops_plainly
    def post_trainer_create(self, cfg, trainer) -> None:
        """Hand the run to its trainer, unless the launcher shards in a way that is not supported."""
        if not isinstance(trainer, self.get_trainer_cls(cfg)):
            raise EEVEError(
                f"the trainer that was built is {type(trainer).__name__}, not the one that keeps rows frozen and proves "
                "it; remove what brings it"
            )
        settings = self.run.settings
        in_fp8, own_rates = settings.frozen_precision is not None, bool(settings.rate_keys)
        sharding.check_started(trainer.accelerator, len(self.run.schedule), in_fp8, own_rates)
        trainer.eeve_run = self.run

    @stops_plainly
    def post_train_unload(self, cfg) -> None:
        """The weights are saved: write the stage's record beside them. Nothing is written of a run that fails."""
        if not axolotl_versions.is_failing():
            self.run.write_record(cfg.output_dir)

    @stops_plainly
    def post_lora_merge(self, cfg, adapter_path: str, output_path: str) -> None:
        """The merged model is saved: its record and history beside it, as a chain has them."""
        record_merge(adapter_path, output_path)
