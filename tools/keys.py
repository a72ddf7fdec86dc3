"""docs/keys.md: every key of the YAML files of this project, from the schemas that read them.

python tools/keys.py    # writes it; `make keys` does so, and a test holds the file to it
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from eeve_axolotl.cli import SCHEMAS

FILE = Path(__file__).resolve().parents[1] / "docs" / "keys.md"
TITLES = {
    "stage": "The `eeve:` block of a stage's recipe",
    "tokenizer": "A tokenizer YAML",
    "corpus": "A corpus YAML",
    "pipeline": "A pipeline YAML",
}
_SHOWN = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}


def text() -> str:
    """The whole page."""
    lines = [
        "# Every key",
        "",
        "Made by `make keys` from the schemas that read the files. `axolotl eeve schema` prints them, for an editor.",
    ]
    for kind, where in SCHEMAS.items():
        schema = resolve_name(where).model_json_schema()
        if kind == "stage":
            schema = {**schema, "properties": schema["$defs"]["EEVESettings"]["properties"], "required": []}
        lines += ["", f"## {TITLES[kind]}", *_keys("", schema, schema.get("$defs", {}), set())]
    return "\n".join(lines) + "\n"


def _keys(prefix: str, schema: Mapping[str, Any], named: Mapping[str, Any], told: set[str]) -> Iterator[str]:
    """A paragraph for each key of a mapping, then those of the mappings below it.

    Args:
        prefix: what stands before the key, with dots.
        named: the schemas of mappings, by name.
        told: the names of those that the page has already.
    """
    required = schema.get("required", [])
    for key, entry in schema.get("properties", {}).items():
        default = (
            "required"
            if key in required
            else f"default `{json.dumps(entry.get('default'), ensure_ascii=False)}`"
        )
        below = list(_mappings(entry, named))
        if below and key not in required:
            default = "may be left out"
        said = " ".join(entry.get("description", "").split())
        yield ""
        yield f"**`{prefix}{key}`**: {_kind(entry, named)}; {default}. {said}".rstrip()
        for name, place in below:
            dots = f"{prefix}{key}{place}."
            if name not in told:
                told.add(name)
                yield from _keys(dots, _without(named[name], schema), named, told)
            else:
                yield ""
                yield f"Its keys are those of a `{name}` above."


def _without(schema: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping without the keys that the one above it has with the same meaning: a stage's, in the list of stages."""
    known = above.get("properties", {})
    own = {
        key: entry
        for key, entry in schema["properties"].items()
        if entry.get("description") != known.get(key, {}).get("description", "")
    }
    return {**schema, "properties": own}


def _kind(entry: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in entry:
        target = named[entry["$ref"].rpartition("/")[2]]
        return _kind(target, named) if "enum" in target else "a mapping"
    if "enum" in entry:
        return " or ".join(f"`{json.dumps(value)}`" for value in entry["enum"])
    if "const" in entry:
        return f"`{json.dumps(entry['const'])}`"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in entry:
            return " or ".join(dict.fromkeys(_kind(each, named) for each in entry[several]))
    kind = entry.get("type")
    if kind == "array":
        items = _kind(entry.get("items", {}), named)
        return "a list of mappings" if items == "a mapping" else f"a list of {items}"
    if kind == "object":
        return "a mapping of names" if "additionalProperties" in entry else "a mapping"
    return _SHOWN.get(str(kind), "anything")


def _mappings(
    entry: Mapping[str, Any], named: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, str]]:
    """The named mappings that a key takes, and where: `[]` in a list, `.NAME` under names of the user's own."""
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        if "properties" in named[name]:
            yield name, place
    for several in ("anyOf", "oneOf", "allOf"):
        for each in entry.get(several, []):
            yield from _mappings(each, named, place)
    if isinstance(entry.get("items"), Mapping):
        yield from _mappings(entry["items"], named, place + "[]")
    if isinstance(entry.get("additionalProperties"), Mapping):
        yield from _mappings(entry["additionalProperties"], named, place + ".NAME")


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
