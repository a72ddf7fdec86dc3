"""The part of Axolotl's config that a history tells: what was chosen, without what must stay private."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from axolotl.integrations.config import merge_input_args
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eeve_axolotl.secrets import redacted


def chosen(cfg: Any) -> dict[str, Any]:
    """The keys of Axolotl's config and its plugins' that differ from their defaults, as JSON, credentials redacted."""
    fields = merge_input_args()[1].model_fields
    found = {}
    for key, value in cfg.to_dict().items():
        if key in fields and value is not None:
            plain = _as_json(value)
            if fields[key].is_required() or plain not in _untouched(fields[key]):
                found[key] = plain
    plain_settings: dict[str, Any] = redacted(found)
    return plain_settings


def _untouched(field: FieldInfo) -> list[Any]:
    """What the key holds where nobody set it: its default, or a block of nothing but defaults, which validation makes."""
    blocks = (
        kind.model_construct().model_dump(exclude_none=True)  # unchecked: nothing at all may be refused
        for kind in _kinds(field.annotation)
        if not any(each.is_required() for each in kind.model_fields.values())
    )
    return [_as_json(each) for each in (field.get_default(call_default_factory=True), *blocks)]


def _kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a key may be of: itself, or one of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _kinds(each)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """A pydantic model as a mapping, an enum's value, anything else as text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return getattr(value, "value", None) or str(value)
