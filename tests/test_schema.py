"""`axolotl eeve schema`: every key of ours, its type and what it is for."""

import json

import pytest
from click.testing import CliRunner

from eeve_axolotl.cli import SCHEMAS, eeve


def schema(*yaml: str) -> dict:
    done = CliRunner().invoke(eeve, ["schema", *yaml])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_the_block_of_a_stage_is_what_is_printed_unless_asked():
    found = schema()
    assert found == schema("stage")
    assert [*found["properties"]] == ["eeve"]
    keys = found["$defs"]["EEVESettings"]["properties"]
    assert {"stage", "stages", "until_converged", "base_vocab_size", "init"} <= keys.keys()
    assert keys["save_stages"]["enum"] == ["all", "last", "none"]


@pytest.mark.parametrize("yaml", SCHEMAS)
def test_every_key_says_what_it_is_for(yaml):
    found = schema(yaml)
    blocks = found.get("$defs", {})
    for name, model in {"": found, **blocks}.items():
        for key, value in model.get("properties", {}).items():
            block = blocks.get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or block.get("description"), f"{name}.{key}"
