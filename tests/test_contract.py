"""What this package uses of Axolotl and transformers is there, as it is used: the first tests to run on a new release.

Each says what it finds in a sentence, for `make next-axolotl`. tests/e2e/test_hooks.py has the order of the hooks.
"""

import inspect

import pytest
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.integrations.base import BasePlugin
from axolotl.utils.schemas.config import AxolotlInputConfig
from transformers import Trainer

from eeve_axolotl import EEVEPlugin, axolotl_versions
from eeve_axolotl.trainer import EEVETrainer

pytestmark = pytest.mark.both_versions

# Keys of Axolotl's config that the plugin sets, or whose meaning a stage rests on.
KEYS = [
    "adapter", "attn_implementation", "base_model", "dataset_prepared_path", "datasets", "deepspeed", "fsdp_config",
    "fsdp_version", "gradient_accumulation_steps", "gradient_checkpointing", "lora_modules_to_save", "max_steps",
    "mean_resizing_embeddings", "merge_method", "micro_batch_size", "output_dir", "peft_ensure_weight_tying", "plugins",
    "pretraining_dataset", "rl", "sample_packing", "sequence_len", "tokenizer_config", "trainer_cls", "unfrozen_parameters",
]  # fmt: skip
HOOKS = [
    name for name in vars(EEVEPlugin) if not name.startswith("_") and callable(getattr(EEVEPlugin, name))
]


def positional(function) -> list[str]:
    """The names of the parameters by which `function` may be called by place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in inspect.signature(function).parameters.values() if each.kind in kinds]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_one_of_axolotls_and_takes_what_it_is_given(hook):
    if axolotl_versions.release() < axolotl_versions.HOOKS_SINCE.get(hook, (0, 0)):
        assert not hasattr(BasePlugin, hook), (
            f"Axolotl has {hook} before axolotl_versions.HOOKS_SINCE says so"
        )
        return
    assert hasattr(BasePlugin, hook), f"Axolotl has no hook {hook}"
    ours, theirs = positional(getattr(EEVEPlugin, hook)), positional(getattr(BasePlugin, hook))
    assert ours == theirs, f"Axolotl's {hook} takes {', '.join(theirs)}; ours takes {', '.join(ours)}"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_one_of_axolotls(key):
    assert key in AxolotlInputConfig.model_fields, f"Axolotl's config has no key {key}"


def overridden() -> list[str]:
    """Methods of our trainer that are there in Axolotl's too."""
    ours = [each for each in EEVETrainer.__mro__ if each.__module__.startswith("eeve_axolotl.")]
    names = {name for each in ours for name, value in vars(each).items() if inspect.isfunction(value)}
    return sorted(name for name in names if not name.startswith("__") and hasattr(AxolotlTrainer, name))


@pytest.mark.parametrize(
    "name",
    [
        "create_optimizer",
        "create_scheduler",
        "log",
        "prediction_step",
        "train",
        "_get_train_sampler",
        "_save_checkpoint",
    ],
)
def test_a_method_that_must_be_called_is_axolotls(name):
    assert name in overridden(), (
        f"{name} is a method that Axolotl's trainer does not have or ours does not override"
    )
    assert callable(getattr(Trainer, name, None)), f"transformers' Trainer has no method {name}"


@pytest.mark.parametrize("name", overridden())
def test_a_method_takes_what_axolotls_takes(name):
    """Ours may pass the rest on; what it names by place comes in Axolotl's order."""
    ours = inspect.signature(getattr(EEVETrainer, name))
    theirs = positional(getattr(AxolotlTrainer, name))
    named = positional(getattr(EEVETrainer, name))
    passes_on = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in ours.parameters.values())
    told = f"Axolotl's {name} takes {', '.join(theirs)}; ours takes {', '.join(named)}"
    assert named == theirs[: len(named)], told
    assert passes_on or len(named) == len(theirs), told
