"""One model looked at from all sides: its scores, its rows, what its new tokens are near, what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from eeve_axolotl import embeddings
from eeve_axolotl.args import InitSettings
from eeve_axolotl.errors import EEVEError, if_offline
from eeve_axolotl.evaluation.scoring import score, stream_texts
from eeve_axolotl.evaluation.settings import PROMPTS, EvaluationSettings, subject
from eeve_axolotl.files import write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter
from eeve_axolotl.records import FIGURES, MARK, read
from eeve_axolotl.rows import row_count
from eeve_axolotl.secrets import redacted
from eeve_axolotl.vocabulary import id_count, manifest_base_size, missing_rows_from, tokenizer_beside

LOG = logger("evaluation")
DEFAULT_RULE = InitSettings().output  # of output rows that a model lacks


def load(
    model: str | Path,
    tokenizer: str | Path | None = None,
    dtype: str = "auto",
    output_rows: str = DEFAULT_RULE,
):
    """A causal language model and its tokenizer, on the GPU if there is one.

    A tokenizer that extends the model's own gives the extended model before training: the missing rows start as a
    run's own would, its output rows by the rule `output_rows` (see `args.InitSettings.output`). Raises EEVEError if
    either cannot be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(tokenizer or model)
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise EEVEError(
            f"no model and tokenizer at {model} ({reason}); give the directory of a saved model{if_offline()}"
        ) from None
    _set_missing_rows(loaded, words, model, tokenizer or model, output_rows)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.nn.Module.to(
        loaded, device
    ), words  # transformers' own `to` only refuses some quantised models


def _set_missing_rows(loaded, words, model: str | Path, tokenizer: str | Path, output_rows: str) -> None:
    """Set the rows of tokens that the model lacks, and mark it, both as a run does.

    A base's rows beyond its own tokenizer are padding, never trained, so they are missing too.
    """
    rows, size = row_count(loaded), id_count(words)
    mark = getattr(loaded.config, MARK, None)
    if mark and size <= mark["vocab_size"]:
        return
    own = None if str(tokenizer) == str(model) else tokenizer_beside(str(model))
    own_ids = None if own is None else id_count(own)
    base = manifest_base_size(tokenizer) or min(rows, own_ids or rows)
    start = max(base, missing_rows_from(base, size, rows, None, own_ids))
    if start >= size:
        return
    if size > rows:
        # An id without a token gets a row that is drawn: the same each time.
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            loaded.resize_token_embeddings(size, mean_resizing=False)
    embeddings.initialise(loaded, words, base, start, output_rows)
    setattr(loaded.config, MARK, {"base_vocab_size": base, "vocab_size": size})


def within_context(model, length: int) -> int:
    """`length` in tokens, or the model's context where that is shorter."""
    return min(length, getattr(model.config.get_text_config(), "max_position_embeddings", None) or length)


def base_vocab_size(model, tokenizer_directory: str | Path) -> int | None:
    """Where new tokens begin, by the model's mark or the tokenizer's manifest; None for a model without any."""
    mark = getattr(model.config, MARK, None)
    return mark["base_vocab_size"] if mark else manifest_base_size(tokenizer_directory)


def first_subwords(tokenizer, base_size: int) -> dict[int, int] | None:
    """For the id of each new token, its first subword's id in the base's vocabulary; None without new tokens."""
    if base_size >= id_count(tokenizer):
        return None
    pieces = embeddings.subwords(tokenizer, base_size)
    return {base_size + n: ids[0] for n, ids in enumerate(pieces) if ids}


def inspect(
    model,
    tokenizer,
    texts: Mapping[str, str | Path],
    *,
    base_size: int | None,
    prompts: Iterable[str] = PROMPTS,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 1024,
) -> dict:
    """All figures of one model, as the report reads them.

    Args:
        texts: name -> file or directory (see `EvaluationSettings.texts`).
        base_size: first new id; None where there are no new tokens.
        limit: documents of each text to read.
    """
    max_length = within_context(model, max_length)
    firsts = first_subwords(tokenizer, base_size) if base_size is not None else None
    scores = {}
    for name, path in texts.items():
        with Meter(f"scoring {name}", LOG) as meter:
            scores[name] = score(
                model,
                tokenizer,
                meter.reading(stream_texts(path, limit)),
                first_subwords=firsts,
                batch_size=batch_size,
                max_length=max_length,
            ).as_dict()
    start = base_size if firsts else None
    with Meter("writing samples", LOG):
        samples = [sample(model, tokenizer, prompt, start) for prompt in prompts]
    return {
        "texts": scores,
        "rows": row_norms(model, start),
        "neighbours": neighbours(model, tokenizer, start) if start else {},
        "samples": samples,
    }


def evaluate(
    model: str,
    settings: EvaluationSettings,
    *,
    tokenizer: str | None = None,
    base: str | Path | None = None,
    output: str | Path | None = None,
    name: str | None = None,
    position: float = 0,
    output_rows: str | None = None,
) -> dict:
    """Load and inspect `model`; its figures, written to `output` if given.

    Args:
        output_rows: the rule by which missing output rows start (see `load`); None for the default.
        base: figures of the base model, as written for it: retention is its bits per byte over this model's.
    """
    loaded, words = load(model, tokenizer, settings.dtype, output_rows or DEFAULT_RULE)
    found = {
        "name": redacted(name or str(model)),
        "position": position,
        **subject(model, tokenizer, settings, output_rows),
        **inspect(
            loaded,
            words,
            settings.texts,
            base_size=base_vocab_size(loaded, tokenizer or model),
            prompts=settings.prompts,
            limit=settings.limit,
            batch_size=settings.batch_size,
            max_length=settings.max_length,
        ),
    }
    before = (read(Path(base), FIGURES) or {}).get("texts", {}) if base else {}
    found["retention"] = retention(before, found["texts"])
    if output:
        write_json(Path(output), found)
    return found


def retention(before: Mapping[str, Mapping], now: Mapping[str, Mapping]) -> dict[str, float]:
    """By text, the base's bits per byte over this model's, from the figures on texts of both; where both are known."""
    known = {text: (before.get(text) or {}).get("bits_per_byte") for text in now}
    return {
        text: bits / now[text]["bits_per_byte"]
        for text, bits in known.items()
        if bits is not None and now[text]["bits_per_byte"]
    }


def row_norms(model, base_size: int | None) -> dict:
    """Mean and spread of the rows' Euclidean norms, old and new, in both matrices."""

    def norms(rows: torch.Tensor) -> dict | None:
        if not len(rows):
            return None
        each = rows.float().norm(dim=-1)
        return {"mean_norm": float(each.mean()), "std_norm": float(each.std()), "count": len(each)}

    found = {}
    matrices = {
        "input_embeddings": model.get_input_embeddings(),
        "output_embeddings": model.get_output_embeddings(),
    }
    for name, module in matrices.items():
        weight = module.weight.detach()
        border = len(weight) if base_size is None else base_size
        found[name] = {"old": norms(weight[:border]), "new": norms(weight[border:])}
    return found


def neighbours(model, tokenizer, base_size: int, tokens: int = 8, nearest: int = 5) -> dict:
    """For some new tokens, evenly spaced over the ids, the rows of the input embeddings nearest by cosine."""
    weight = torch.nn.functional.normalize(model.get_input_embeddings().weight.detach().float(), dim=-1)
    weight = weight[: id_count(tokenizer)]
    ids = torch.linspace(base_size, len(weight) - 1, tokens).round().long().unique()
    values, found = (weight[ids] @ weight.T).topk(nearest + 1)
    result = {}
    for i, near, cosines in zip(ids.tolist(), found.tolist(), values.tolist(), strict=True):
        others = [(j, cosine) for j, cosine in zip(near, cosines, strict=True) if j != i][:nearest]
        result[tokenizer.convert_ids_to_tokens(i)] = [
            [tokenizer.convert_ids_to_tokens(j), round(cosine, 4)] for j, cosine in others
        ]
    return result


@torch.no_grad()
def sample(model, tokenizer, prompt: str, base_size: int | None, length: int = 40) -> dict:
    """A greedy continuation of `prompt`, and the share of new tokens in it."""
    ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
    written = model.generate(
        **ids, max_new_tokens=length, do_sample=False, pad_token_id=tokenizer.eos_token_id or 0
    )[0, ids["input_ids"].shape[1] :].tolist()
    new = sum(i >= base_size for i in written) if base_size else 0
    return {
        "prompt": prompt,
        "text": tokenizer.decode(written, skip_special_tokens=True),
        "new_token_share": new / len(written) if written else 0.0,
    }
