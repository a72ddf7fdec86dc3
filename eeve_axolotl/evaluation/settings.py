"""What to look at in a model: keys that the pipeline and `axolotl eeve evaluate` share. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from eeve_axolotl import inputs
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.records import weights_sha256
from eeve_axolotl.secrets import redacted
from eeve_axolotl.settings import Settings

PROMPTS = ["안녕하세요,", "오늘은", "Once there was"]


class EvaluationSettings(Settings):
    """Held-out texts and how to read them."""

    texts: dict[str, str] = Field(min_length=1)
    """Name of a text -> its file (JSON lines or Parquet with `text`, plain or compressed), or a directory of such.
    The base's own languages belong here too."""

    prompts: list[str] = PROMPTS
    """What the model continues, greedily, for samples. A blank at the end is left out: it belongs to the next token."""

    limit: int | None = Field(default=None, gt=0)
    """Documents of each text to read; null for all."""

    batch_size: int = Field(default=8, gt=0)
    """Windows in one forward pass."""

    max_length: int = Field(default=1024, gt=1)
    """Tokens in one forward pass."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights' type while evaluating; `auto` is as saved."""

    @field_validator("prompts")
    @classmethod
    def no_blank_at_the_end(cls, value: list[str]) -> list[str]:
        """The prompts without blanks at their ends."""
        return [each.rstrip() or each for each in value]


def subject(
    model: str | Path,
    tokenizer: str | Path | None,
    settings: EvaluationSettings,
    output_rows: str | None = None,
) -> dict:
    """What figures depend on: kept with them, it tells whether they are of what is there now.

    Args:
        output_rows: the rule by which output rows that the model lacks have started, where it is not the default.
    """
    words = Path(tokenizer or model)
    return {
        **({} if output_rows is None else {"output_rows": output_rows}),
        "model": redacted(str(model)),
        "weights": weights_sha256(model),
        "tokenizer": tokenizer_identity(words)
        if (words / "tokenizer.json").is_file()
        else redacted(str(words)),
        "config": inputs.of_model(model),
        "texts_read": redacted({name: inputs.of_path(path) for name, path in settings.texts.items()}),
        "settings": {**redacted(settings.model_dump()), "prompts": settings.prompts},
    }
