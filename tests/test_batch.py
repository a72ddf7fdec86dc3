"""The same global batch on any number of GPUs: the accumulation that follows, and what contradicts it."""

import pytest
from axolotl.utils.dict import DictDefault

from eeve_axolotl.batch import accumulation_steps
from eeve_axolotl.errors import EEVEError

PAPERS = 256  # paper 3.2: 8 x 4 on 8 GPUs


def registered(**keys) -> DictDefault:
    from eeve_axolotl.plugin import EEVEPlugin  # slow to import: it brings Axolotl's trainer

    cfg = DictDefault(
        {
            "base_model": "org/model",
            "micro_batch_size": 8,
            "eeve": {"stage": 3, "global_batch_size": PAPERS},
            **keys,
        }
    )
    EEVEPlugin().register(cfg)
    return cfg


@pytest.mark.parametrize("gpus, steps", [(1, 32), (2, 16), (4, 8), (8, 4)])
def test_the_papers_global_batch_on_any_number_of_gpus(gpus, steps, monkeypatch):
    assert accumulation_steps(PAPERS, 8, gpus) == steps
    monkeypatch.setenv("WORLD_SIZE", str(gpus))  # what torchrun and Accelerate tell each process
    assert registered().gradient_accumulation_steps == steps


def test_rays_driver_and_its_workers_come_to_the_same(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ray = {"use_ray": True, "ray_num_workers": 4}
    driver = registered(**ray)
    assert driver.gradient_accumulation_steps == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    worker = registered(**ray, gradient_accumulation_steps=driver.gradient_accumulation_steps)
    assert worker.gradient_accumulation_steps == 8


def test_without_a_global_batch_the_accumulation_is_the_recipes():
    cfg = registered(eeve={"stage": 3}, gradient_accumulation_steps=5)
    assert cfg.gradient_accumulation_steps == 5


@pytest.mark.parametrize(
    ("sizes", "change"),
    [
        ((256, 8, 3), "take a number of GPUs that divides 256, or a global batch that 3 divides"),
        ((256, 6, 8), "set micro_batch_size: 4, or another divisor of 32"),
        ((256, 64, 8), "set micro_batch_size: 32, or another divisor of 32"),
        ((4, 1, 8), "take a number of GPUs that divides 4, or a global batch that 8 divides"),
    ],
)
def test_a_global_batch_that_does_not_divide_says_what_to_change(sizes, change):
    batch, micro_batch, gpus = sizes
    with pytest.raises(EEVEError) as error:
        accumulation_steps(batch, micro_batch, gpus)
    assert str(error.value) == (
        f"a global batch of {batch} does not divide into {gpus} GPUs x micro_batch_size {micro_batch}; {change}"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"micro_batch_size": 3}, "a global batch of 256 does not divide into 1 GPUs x micro_batch_size 3"),
        ({"gradient_accumulation_steps": 4}, "`gradient_accumulation_steps: 4` contradicts .*; remove it"),
        ({"batch_size": 32}, "`batch_size` cannot be used together with `eeve.global_batch_size`"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size` cannot be used together"),
    ],
)
def test_a_run_stops_where_a_key_contradicts_its_global_batch(keys, message, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit, match=message):
        registered(**keys)
