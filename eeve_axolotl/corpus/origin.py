"""What a corpus was made of, by content, as its manifest keeps it, and what of that has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from eeve_axolotl import inputs
from eeve_axolotl.corpus.manifest import Manifest, tokenizer_identity
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.files import sha256
from eeve_axolotl.secrets import redacted
from eeve_axolotl.sources import Source

WHERE_AND_HOW = {"output", "work", "overwrite", "executor", "stages"}
"""Keys that change nothing in the text."""

Origin = dict[str, inputs.Identity]
"""The content of each source, by its place in the YAML."""


def made_of(settings: CorpusSettings) -> Origin:
    """What a corpus with these settings would be made of now."""
    origin = {where: source.identity() for where, source in _sources(settings)}
    for name, group in settings.mix.items():
        perplexity = group.filters.perplexity
        for file in (perplexity.kenlm, perplexity.sentencepiece) if perplexity else ():
            if file:
                origin[f"mix.{name}.filters.perplexity: {file}"] = inputs.of_path(file)
    found: Origin = redacted(origin)
    return found


def known_since(before: Origin, now: Origin) -> Origin:
    """`before`, with the revisions on the hub that only the making has fetched."""
    return {where: inputs.known_since(each, now.get(where) or {}) for where, each in before.items()}


def what_changed(manifest: Manifest, settings: CorpusSettings) -> list[str]:
    """What is another than when the corpus with this manifest was made, in words: settings, tokenizer, sources, shards.

    A source that is gone as a whole is none that has changed: raw text is large. Manifests of earlier versions tell less.
    """
    built = {key: each for key, each in (manifest.get("settings") or {}).items() if key not in WHERE_AND_HOW}
    now = redacted(settings.model_dump(mode="json"))
    found = inputs.differences(built, {key: now.get(key) for key in built})
    made_with = manifest["tokenizer"].get("identity")
    if not found and made_with and made_with != _identity(settings.tokenizer):
        found.append(f"{settings.tokenizer}, with which its new tokens were counted, is another tokenizer")
    before = manifest.get("made_of")
    if before and not found:
        of_now = made_of(settings)
        for where, each in before.items():
            if there := of_now.get(where):
                found += inputs.changes(each, there)
    return found + _shards(manifest, Path(settings.output))


def _shards(manifest: Manifest, output: Path) -> list[str]:
    found = []
    for name, entry in (manifest.get("shards") or {}).items():
        if not (output / name).is_file():
            found.append(f"{output / name} is gone")
        elif sha256(output / name) != entry.get("sha256"):
            found.append(f"{output / name} is not as it was written")
    return found


def _identity(tokenizer: str) -> str | None:
    return tokenizer_identity(tokenizer) if Path(tokenizer).is_dir() else None


def _sources(settings: CorpusSettings) -> Iterable[tuple[str, Source]]:
    def numbered(where: str, sources: list[Source] | None) -> Iterable[tuple[str, Source]]:
        return ((f"{where}.{number}: {each.path}", each) for number, each in enumerate(sources or []))

    for name, group in settings.mix.items():
        yield from numbered(f"mix.{name}.sources", group.sources)
        if group.filters.perplexity:
            yield from numbered(
                f"mix.{name}.filters.perplexity.good_text", group.filters.perplexity.good_text
            )
    yield from numbered("held_out.protect", settings.held_out.protect)


def local_sources(settings: CorpusSettings) -> Iterable[Source]:
    """The sources of the mix that are files."""
    return (each for group in settings.mix.values() for each in group.sources if each.split is None)
