"""One `axolotl train`: from the YAML's block to initialised, frozen rows and the record of each stage."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from axolotl.utils.logging import get_logger

from eeve_axolotl import batch, checks, config_tokens, embeddings, rows
from eeve_axolotl.args import EEVESettings, ScheduledStage, read_block
from eeve_axolotl.base_model import is_tied
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json
from eeve_axolotl.frozen_precision import Float8Trunk, hold_in_fp8
from eeve_axolotl.losses.chunked import ChunkedLoss, use_chunked_loss
from eeve_axolotl.records import FAILED, HISTORY, MARK, RECORD, weights_sha256
from eeve_axolotl.stages import STAGES, Layers, Stage
from eeve_axolotl.version import __version__
from eeve_axolotl.vocabulary import Vocabulary

# PEFT refuses adapters on two kinds of modules of these, where `lora_target_linear` would put them.
_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")

LOG = get_logger("axolotl.eeve")  # of the main process only; Axolotl prints what begins with its own name


@dataclass
class StageRun:
    """What one run trains, stage after stage, and what it has found out so far.

    Axolotl's hooks call its methods in the order in which they stand here; the trainer calls the last ones for each
    stage.
    """

    settings: EEVESettings
    number: int = 0  # the stage that the run is in, as an index into its schedule
    auto_resume: bool = False
    checkpoint_rows: int | None = None
    vocabulary: Vocabulary | None = None
    frozen: rows.FrozenRows | None = None
    other_loss: str | None = None  # the key with which the config decides the loss itself
    chunked_loss: ChunkedLoss | None = None
    trunk: Float8Trunk | None = None  # the frozen layers, where they are held in 8 bits
    record: dict = field(default_factory=dict)  # what the stage's record will say
    history: dict = field(default_factory=dict)  # loss by step, and what it cost
    _before: rows.Fingerprint | None = field(
        default=None, init=False, repr=False
    )  # of what the stage freezes

    @property
    def schedule(self) -> list[ScheduledStage]:
        """The stages of this run; most runs have one."""
        return self.settings.schedule()

    @property
    def stage(self) -> Stage:
        """The stage that the run is in."""
        return self.schedule[self.number].resolved()

    @property
    def is_last(self) -> bool:
        """Whether no stage follows."""
        return self.number == len(self.schedule) - 1

    @classmethod
    def from_config(cls, cfg) -> StageRun:
        """Read the `eeve:` block of a raw Axolotl config.

        Raises EEVEError if it is missing or not valid.
        """
        return cls(read_block(cfg), auto_resume=bool(cfg.get("auto_resume_from_checkpoints")))

    def set_implied_keys(self, cfg) -> None:
        """Set the Axolotl keys that follow from the stage, and say so."""
        cfg["mean_resizing_embeddings"] = False  # new rows get their subwords' means instead
        self.other_loss = checks.other_loss(cfg)
        steps = batch.implied_accumulation(cfg, self.settings.global_batch_size)
        if steps:
            cfg["gradient_accumulation_steps"] = steps
            LOG.info(
                "global batch of %d: %d processes x micro_batch_size %d x gradient_accumulation_steps %d",
                self.settings.global_batch_size,
                batch.processes(cfg),
                cfg.get("micro_batch_size") or 1,
                steps,
            )
        if self.stage.internal_layers is Layers.QLORA:
            cfg["lora_modules_to_save"] = checks.modules_to_save(cfg, self.stage) or None
            # The default, memory_efficient, rounds every matrix of a QLoRA checkpoint to 4 bits and back,
            # frozen embeddings included. Legacy adds the adapters to the weights as they are.
            cfg["merge_method"] = "legacy"
            if cfg["lora_modules_to_save"] and not self.settings.untie and is_tied(cfg):
                cfg["peft_ensure_weight_tying"] = True  # else PEFT trains a copy of each and unties the model
        if cfg.get("gradient_checkpointing") and not any(
            each.resolved().backward_through_layers for each in self.schedule
        ):
            # It would recompute, and ask for gradients of, layers that no gradient passes through.
            LOG.info(
                "stage %s needs no backward pass through the layers: gradient checkpointing off",
                self.stage.name,
            )
            cfg["gradient_checkpointing"] = False

    def note_checkpoint(self, model) -> None:
        """Note the rows of the checkpoint, and untie them if asked to, before the model is resized."""
        self.checkpoint_rows = rows.row_count(model)
        if self.settings.untie:
            self.record["untied"] = rows.untie(model)
            if self.record["untied"]:
                LOG.info("untied: the output embeddings are a matrix of their own from here on")

    def initialise_new_rows(self, cfg, model) -> None:
        """Give the rows that the checkpoint lacks their start, or say that there are none."""
        from axolotl.loaders import load_tokenizer

        assert self.checkpoint_rows is not None  # note_checkpoint comes before
        tokenizer = load_tokenizer(cfg)
        self.vocabulary = config_tokens.vocabulary_of(
            cfg, tokenizer, self.checkpoint_rows, self.settings, getattr(model.config, MARK, None)
        )
        start, stop = self.vocabulary.uninitialised_from, self.vocabulary.size
        if rows.row_count(model) < stop:  # Axolotl counts tokens, and ids may have holes
            model.resize_token_embeddings(stop, mean_resizing=False)
        if start < stop:
            report = embeddings.initialise(
                model, tokenizer, self.vocabulary.base_size, start, self.settings.init.output
            )
            LOG.info("%s", report)
            self.record["initialised"] = report.as_dict()
        else:
            LOG.info("initialised no rows: the checkpoint has all %s", f"{stop:,}")
            self.record["initialised"] = None
        setattr(model.config, MARK, self.vocabulary.mark())

    def keep_adapters_off(self, cfg, model) -> None:
        """Keep adapters off both embedding matrices, and off routers that PEFT cannot wrap, which answer with a tuple.

        Axolotl knows the heads of a few architectures only by name.
        """
        if self.stage.internal_layers is Layers.QLORA:
            mask = rows.row_mask(model, STAGES[7], 0)
            names = {mask.inputs.module, mask.outputs.module}
            names |= {name for name, each in model.named_modules() if type(each).__name__.endswith("Router")}
            if model.config.model_type in _MAMBA:
                names |= {"conv1d", "out_proj"}
            cfg["lora_exclude_modules"] = sorted({*(cfg.get("lora_exclude_modules") or []), *names})

    def enter(self, number: int, model) -> None:
        """Go to another stage of the schedule: its masks in place of those before."""
        self.number = number
        self.record = {}
        self.freeze(model)

    def freeze(self, model) -> None:
        """Freeze what the stage does not train, choose the loss of the head, and log what trains."""
        assert self.vocabulary is not None  # initialise_new_rows comes before
        if self.chunked_loss is not None:  # the stage before's
            self.chunked_loss.remove()
        if self.trunk is not None and self.stage.internal_layers is not Layers.FROZEN:
            self.trunk.remove()
            self.trunk = None
        for module in model.modules():
            # On CPUs with AVX512-BF16 bitsandbytes would pack a 4-bit layer in an evaluation, to bf16's precision, and
            # what trains after it would get no gradient through the layer.
            if getattr(module, "support_avx512bf16_for_cpu", False):
                module.support_avx512bf16_for_cpu = False
        mask = rows.row_mask(model, self.stage, self.vocabulary.base_size, self.vocabulary.size)
        self.frozen = rows.freeze(model, mask)
        trained = sum(parameter.numel() for parameter in self.frozen.trained_parameters().values())
        LOG.info(
            "stage %s trains %s of %s input rows, %s of %s output rows, internal layers %s: %s parameters",
            self.stage.name,
            f"{mask.inputs.trained:,}",
            f"{mask.inputs.total:,}",
            f"{mask.outputs.trained:,}",
            f"{mask.outputs.total:,}",
            self.stage.internal_layers.value,
            f"{trained:,}",
        )
        self.chunked_loss = self._chunked_loss(model)
        self.record["head_loss"] = "plain" if self.chunked_loss is None else "chunked"

    def _chunked_loss(self, model) -> ChunkedLoss | None:
        """The loss that never holds the logits, in force on `model`, unless the config wants another."""
        if self.settings.head_loss == "plain":
            return None
        if self.other_loss is not None:
            LOG.info("head_loss: plain, for `%s` decides it", self.other_loss)
            return None
        return use_chunked_loss(model)

    def begin(self) -> None:
        """Fingerprint everything that this stage freezes, before the first step; then hold it in 8 bits, if it shall be."""
        assert self.frozen is not None
        self.frozen.check_trained()
        self._before = self.frozen.fingerprint()  # of the weights that were loaded, where they were loaded
        if self.settings.frozen_precision is not None:
            if self.trunk is None:  # else the stage before has left it so
                for problem in checks.precision_problems({}, [self.stage]):
                    raise EEVEError(problem)
                self.trunk = hold_in_fp8(self.frozen.model)
            self.record["frozen_precision"] = self.trunk.record()

    def finish(self, output_dir: str | Path, optimizer) -> None:
        """Compare with the fingerprint from before, and keep what the record will say.

        Raises rows.FrozenMovedError, with the evidence left in `output_dir`, if anything frozen changed.
        """
        assert self.frozen is not None and self._before is not None  # begin comes before
        self.frozen.check_trained()
        self.frozen.check_finite()
        after = self.frozen.fingerprint()
        self.record.update(self.frozen.record(self._before, after, optimizer))
        try:
            self._before.check(after)
        except rows.FrozenMovedError:
            self._write(Path(output_dir) / FAILED)
            raise
        unmoved = self.record["trained_and_unmoved"]
        if len(unmoved) == len(self._before.trained) and self.record.get("steps", 0) > 1:
            raise EEVEError(
                f"stage {self.stage.name} trained nothing: in {self.record['steps']} steps no weight changed; raise "
                "learning_rate, and see that the loss reaches what the stage trains"
            )
        if unmoved:
            LOG.warning("trained without a change: %s", ", ".join(unmoved[:5]))

    def write_record(self, directory: str | Path) -> None:
        """Write the stage's record beside its weights; written last, so that its presence says "done"."""
        if _is_main_process():
            write_json(Path(directory) / HISTORY, self.history)
            self.record["weights"] = weights_sha256(Path(directory))
            self._write(Path(directory) / RECORD)

    def _write(self, path: Path) -> None:
        if not _is_main_process():
            return
        assert self.vocabulary is not None
        record = {
            "stage": self.stage.name,
            "trains": {
                "input_embeddings": self.stage.input_embeddings.value,
                "output_embeddings": self.stage.output_embeddings.value,
                "internal_layers": self.stage.internal_layers.value,
            },
            **self.vocabulary.mark(),
            "eeve_axolotl": __version__,
            **self.record,
        }
        write_json(path, record)


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
