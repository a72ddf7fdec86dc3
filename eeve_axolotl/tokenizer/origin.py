"""What a tokenizer was made of, by content, as its manifest keeps it, and what of that has changed since."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl import inputs
from eeve_axolotl.secrets import redacted
from eeve_axolotl.tokenizer.settings import WHERE_AND_HOW, TokenizerSettings

FILES = ("tokenizer.json", "tokenizer.model")  # of a tokenizer, what decides its tokens

Origin = dict[str, Any]
"""`base` and `lists` (of allowed and denied tokens): identities; `corpus`: one for each of its entries."""


def made_of(settings: TokenizerSettings) -> Origin:
    """What a tokenizer with these settings would be made of now."""
    origin: Origin = redacted(
        {
            "base": _base(settings.base),
            "corpus": [source.identity() for source in settings.corpus],
            "lists": {
                name: each
                for file in (*settings.allow, *settings.deny)
                for name, each in inputs.of_path(file).items()
            },
        }
    )
    return origin


def known_since(before: Origin, now: Origin) -> Origin:
    """`before`, with the revisions on the hub that only its build has fetched."""
    corpora = zip(before["corpus"], now["corpus"], strict=True)
    return {
        "base": inputs.known_since(before["base"], now["base"]),
        "corpus": [inputs.known_since(*pair) for pair in corpora],
        "lists": before["lists"],
    }


def files_of(directory: Path) -> inputs.Identity:
    """The files in a tokenizer's directory that decide its tokens, by name."""
    return {name: inputs.of_file(directory / name) for name in FILES if (directory / name).is_file()}


def what_changed(manifest: Mapping[str, Any], settings: TokenizerSettings) -> list[str]:
    """What is another than when the tokenizer with this manifest was built, in words: settings, what it was made of, and
    its files.

    A text that is gone as a whole is none that has changed: corpora are large. Manifests of earlier versions tell less.
    """
    built = manifest.get("settings") or {}
    now = redacted(settings.model_dump(mode="json", exclude=WHERE_AND_HOW))
    if built:  # a key that its version did not know: it did as the default says
        fields = TokenizerSettings.model_fields.items()
        defaults = {key: field.default for key, field in fields if key in now and not field.is_required()}
        built = {**defaults, **built}
    found = inputs.differences(built, {key: now.get(key) for key in built})
    before = manifest.get("made_of")
    if before and not found:
        of_now = made_of(settings)
        pairs = [(before[key], of_now[key]) for key in ("base", "lists")]
        # As many as there are in the settings, which are the same; a manifest that says otherwise has been edited.
        nothing: inputs.Identity = {}
        corpora = itertools.zip_longest(before["corpus"], of_now["corpus"], fillvalue=nothing)
        pairs += [(one, other) for one, other in corpora if other]
        found = [sentence for pair in pairs for sentence in inputs.changes(*pair)]
    files = manifest.get("files")
    if files:
        there = files_of(Path(settings.output))
        found += [
            f"{Path(settings.output, name)} is not as it was written" for name in inputs.changed(files, there)
        ]
    return found


def _base(name: str) -> inputs.Identity:
    if ":" in name:  # a file of an installed package
        from eeve_axolotl.tokenizer.base import package_file

        return {name: inputs.of_file(package_file(name))}
    return inputs.of_tokenizer(name)
