"""The command: the base extended and written, for stage 1 to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eeve_axolotl import embeddings, inputs, rows
from eeve_axolotl.calibration.output_rows import Calibrated, calibrate
from eeve_axolotl.calibration.states import documents
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import load
from eeve_axolotl.files import check_writable, replacing, write_json
from eeve_axolotl.records import MARK, START, check_place_to_start, is_ours
from eeve_axolotl.sources import check_has_text
from eeve_axolotl.tokenizer_files import travel_with_tokenizers
from eeve_axolotl.version import __version__
from eeve_axolotl.vocabulary import id_count, manifest_base_size, resolve, tokenizer_beside


def start(
    base: str,
    tokenizer: str,
    texts: Sequence[str],
    output: str | Path,
    *,
    tokens: int = 100_000,
    max_length: int = 512,
    untie: bool = False,
    dtype: str = "auto",
) -> Calibrated:
    """Write `base`, extended by `tokenizer`'s rows, its output rows calibrated, to `output`, for stage 1 to start from.

    Args:
        base: directory or hub name of the base model, without the new rows.
        tokenizer: of ours, extended.
        texts: files or directories of text as the stages will read it, the base's languages included.
        tokens: how many to fit to, at most; of a document to choose on, as many characters.
        max_length: tokens of a forward pass.
        untie: give a model whose embeddings are one matrix a second.

    Raises EEVEError, before anything is written, for a model or a place that cannot be used.
    """
    output = Path(output)
    _check_output(output, base, tokenizer)
    for text in texts:
        check_has_text(text, "--text")
    base_size = manifest_base_size(tokenizer)
    if base_size is None:
        raise EEVEError(f"{tokenizer} is no tokenizer of ours; build it with `axolotl eeve tokenizer`")
    travel_with_tokenizers()
    model, words = load(base, tokenizer, dtype)
    size = id_count(words)
    _check_extends(base, tokenizer, words, base_size)
    if model.get_input_embeddings().weight is model.get_output_embeddings().weight:
        if not untie:
            raise EEVEError(
                f"{base} has one matrix for both embeddings, so an output row cannot start on its own; give --untie"
            )
        rows.untie(model)
    # Once more: `load` leaves the rows of a padded vocabulary, and a head untied since then has the input rows' start.
    embeddings.initialise(model, words, base_size, base_size)
    setattr(model.config, MARK, {"base_vocab_size": base_size, "vocab_size": size})
    found = calibrate(model, words, base_size, documents(texts), tokens=tokens, max_length=max_length)
    with replacing(output, is_ours) as directory:
        model.save_pretrained(directory)
        words.save_pretrained(directory)
        of = {"base": base, "tokenizer": tokenizer, "texts": {each: inputs.of_path(each) for each in texts}}
        write_json(directory / START, {**of, **asdict(found), "eeve_axolotl": __version__})
    return found


def told(found: Calibrated, output: str | Path) -> str:
    """What was done, for a terminal."""
    what = {
        None: "no other start made the text likelier, so output rows start as a stage's own would",
        "shares": "output rows start by how often a first subword begins their token",
        "fitted": "output rows start fitted to the text",
    }[found.rule]
    bits = f"held-out documents {found.before:.3f} bits per byte before, {found.after:.3f} after"
    counted = f"{found.seen:,} of {found.new:,} new tokens in {found.tokens:,} tokens of text"
    return f"{what}; {bits}; {counted}\n{output}: give it to stage 1 as base_model"


def _check_output(output: Path, base: str, tokenizer: str) -> None:
    """Raise EEVEError if `output` cannot be written, is what is read, or holds what this command did not write."""
    check_writable(output, "--output")
    for given in (base, tokenizer):
        if output.resolve() == Path(given).resolve():
            raise EEVEError(f"--output: {output} is {given}, which is read; choose another")
    check_place_to_start(output, "--output")


def _check_extends(base: str, tokenizer: str, words, base_size: int) -> None:
    """Raise EEVEError if `words`, of `tokenizer`, do not extend the tokenizer of `base`, as stage 1 would."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    mark = getattr(config, MARK, None) or {}
    if int(mark.get("vocab_size", 0)) > base_size:
        raise EEVEError(f"{base} has rows of new tokens already; give the model that {tokenizer} extends")
    resolve(
        words,
        config.get_text_config().vocab_size,
        needs_new_rows=True,
        manifest=base_size,
        mark=mark or None,
        base_tokenizer=tokenizer_beside(base),
    )
