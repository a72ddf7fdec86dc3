"""The part of Axolotl's config that a history tells: what was chosen, without what must stay private."""

from __future__ import annotations

import json
from typing import Any

from axolotl.integrations.config import merge_input_args

from eeve_axolotl.secrets import redacted


def chosen(cfg: Any) -> dict[str, Any]:
    """The keys of Axolotl's config and its plugins' that differ from their defaults, as JSON, credentials redacted."""
    fields = merge_input_args()[1].model_fields
    found = {}
    for key, value in cfg.to_dict().items():
        if key in fields and value is not None:
            default = fields[key].get_default(call_default_factory=True)
            plain = json.loads(json.dumps(value, default=_plain))
            if fields[key].is_required() or plain != json.loads(json.dumps(default, default=_plain)):
                found[key] = plain
    plain_settings: dict[str, Any] = redacted(found)
    return plain_settings


def _plain(value: Any) -> Any:
    """A pydantic model as a mapping, an enum's value, anything else as text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return getattr(value, "value", None) or str(value)
