"""The model card for the hub: only what the pipeline's files say. What they do not say is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache

from eeve_axolotl import languages
from eeve_axolotl.files import write_text
from eeve_axolotl.report import markdown
from eeve_axolotl.report.blocks import Block, Bullets, Code, Heading, Inline, Paragraph, Table
from eeve_axolotl.report.collect import PipelineData, StageData
from eeve_axolotl.report.content import new_tokens_table, texts_table, trains
from eeve_axolotl.report.figures import number

NAME = "README.md"
MARKER = "<!-- Written by `axolotl eeve report`, which replaces it as long as this line is here. -->"
_AXOLOTLS = (
    "This model card has been generated automatically according to the information the Trainer had access to"
)
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_LICENSE = "# license: yours to choose; the base model's licence, not known here, and the data's bind it"
_OF_A_LICENSE = ("license", "license_name", "license_link")
_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "{name}"  # this model: its directory, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto")
prompt = tokenizer({prompt}, return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0], skip_special_tokens=True))
```"""
_PAPER = "https://arxiv.org/abs/2402.14714"
_BUILT_WITH = (
    '[<img src="https://raw.githubusercontent.com/axolotl-ai-cloud/axolotl/main/image/axolotl-badge-web.png" '
    'alt="Built with Axolotl" width="200" height="32"/>](https://github.com/axolotl-ai-cloud/axolotl)'
)
_CITATION = """```bibtex
@misc{kim2024efficient,
  title={Efficient and Effective Vocabulary Expansion Towards Multilingual Large Language Models},
  author={Seungduk Kim and Seungtaek Choi and Myeongho Jeong},
  year={2024},
  eprint={2402.14714},
  archivePrefix={arXiv},
  primaryClass={cs.CL}
}
```"""


def render(pipeline: PipelineData) -> str:
    """The card as Markdown with its front matter."""
    done = [stage for stage in pipeline.stages if stage.done]
    parts = [
        _front_matter(pipeline),
        MARKER,
        markdown.render([Heading(_title(pipeline), 1)]).rstrip(),
        _BUILT_WITH,
        _introduction(pipeline),
        f"## Use\n\n{_usage(pipeline)}" if len(done) == len(pipeline.stages) else "",
        markdown.render(
            [
                *_figures(pipeline, done),
                *_tokens(pipeline),
                *_stages(done),
                *_data(pipeline, done),
                *_limits(pipeline),
                *_licence(pipeline),
            ]
        ).rstrip(),
        f"## Citation\n\nThe method is [EEVE]({_PAPER})'s:\n\n{_CITATION}",
    ]
    versions = _versions(done)
    if versions:
        parts.append(markdown.render([Heading("Versions"), versions]).rstrip())
    content = "\n\n".join(part for part in parts if part) + "\n"
    ModelCard(content)  # as the hub reads it; what it would write itself lacks the comments
    return content


def place(pipeline: PipelineData, card: str) -> str:
    """Put the card beside the weights of the last run, unless a card of someone's own is there.

    Returns a sentence that says what was done.
    """
    if not pipeline.runs:
        return "no card beside the weights: the pipeline has no runs"
    last = pipeline.runs[-1]
    if not all(stage.done for stage in last.stages):
        return f"no card beside the weights yet: {last.name} is not done"
    if not any(path for pattern in _WEIGHTS for path in last.result.glob(pattern)):
        return f"no card beside the weights: there are none in {last.result}"
    path = last.result / NAME
    if path.is_file() and not is_generated(path):
        return f"{path} left alone: it is your own; the new card is in the report"
    write_text(path, card)
    return f"card: {path}"


def is_generated(path: Path) -> bool:
    """Whether a card is one that we or Axolotl's trainer wrote, and nobody has made their own."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return MARKER in text or _AXOLOTLS in " ".join(text.split())


def _front_matter(pipeline: PipelineData) -> str:
    licence: dict[str, Any] = {**_base_licence(pipeline)}
    comments = [] if licence else [_LICENSE]
    local = _is_local(pipeline.base_model)
    if local:
        comments.append("# base_model: trained from a local directory; give the base model's name on the hub")
    data = ModelCardData(
        base_model=None if local else pipeline.base_model,
        language=[each.code for each in _languages(pipeline) if each.code] or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["axolotl", "eeve", "vocabulary-expansion"],
        **licence,
    )
    return "\n".join(["---", data.to_yaml(), *comments, "---"])


def _added_languages(pipeline: PipelineData) -> list[languages.Language]:
    """The languages of the new tokens, where their script tells."""
    return languages.of_scripts((pipeline.manifest.get("settings") or {}).get("script") or [])


def _languages(pipeline: PipelineData) -> list[languages.Language]:
    """The new tokens' languages, then those of the held-out texts, where they are called by a language's name."""
    named = [languages.BY_NAME[name] for name in pipeline.text_names if name in languages.BY_NAME]
    return list(dict.fromkeys([*_added_languages(pipeline), *named]))


def _base_licence(pipeline: PipelineData) -> dict[str, str]:
    """The licence in the base model's own card, if that is at hand: beside it, or in the hub's cache."""
    if _is_local(pipeline.base_model):
        path: object = Path(pipeline.base_model).expanduser() / NAME
    else:
        path = try_to_load_from_cache(pipeline.base_model, NAME)
    if not (isinstance(path, (str, Path)) and Path(path).is_file()) or is_generated(Path(path)):
        return {}
    try:
        known = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):  # a card that is not one
        return {}
    found = {key: known[key] for key in _OF_A_LICENSE if isinstance(known.get(key), str)}
    return found if "license" in found else {}


def _is_local(name: str) -> bool:
    """Whether a model's name is a directory rather than `owner/name` on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).is_dir()


def _base(pipeline: PipelineData) -> str:
    """The base model's name; of a local directory its last part, since paths are of one machine only."""
    local = _is_local(pipeline.base_model)
    return Path(pipeline.base_model).expanduser().name if local else pipeline.base_model


def _title(pipeline: PipelineData) -> str:
    base = "A language model" if _is_local(pipeline.base_model) else _base(pipeline).split("/")[-1]
    added = " and ".join(each.name for each in _added_languages(pipeline))
    return f"{base} with {added}" if added else f"{base} with an extended vocabulary"


def _usage(pipeline: PipelineData) -> str:
    """How to load it and have it write, from a prompt that it was evaluated with."""
    samples = [sample for each in pipeline.evaluated for sample in each.samples]
    prompt = samples[0]["prompt"] if samples else "Once there was"
    name = pipeline.runs[-1].result.name if pipeline.runs else "."
    return _USAGE.format(name=f"./{name}", prompt=json.dumps(prompt, ensure_ascii=False))


def _introduction(pipeline: PipelineData) -> str:
    base, added = _base(pipeline), pipeline.new_tokens
    name = base if _is_local(pipeline.base_model) else f"[{base}](https://huggingface.co/{base})"
    what = f"its vocabulary extended by {added:,} tokens" if added else "an extended vocabulary"
    left = [stage.name for stage in pipeline.stages if not stage.done]
    note = f" Not trained yet: stage {', '.join(left)}." if left else ""
    return f"{name} with {what}, trained by the stages of EEVE ([arXiv 2402.14714]({_PAPER})).{note}"


def _tokens(pipeline: PipelineData) -> list[Block]:
    manifest = pipeline.manifest
    if not manifest:
        return []
    scripts = ", ".join((manifest.get("settings") or {}).get("script") or [])
    items: list[Inline] = []
    if pipeline.new_tokens is not None:
        old = manifest["base_vocab_size"]
        new = old + pipeline.new_tokens
        items.append(
            f"{new - old:,} tokens added{f' ({scripts})' if scripts else ''}: from {old:,} to {new:,}"
        )
    words = manifest.get("tokens_in_words") or {}
    if words.get("base") and words.get("extended"):
        items.append(
            f"the words of the tokenizer's corpus take {words['base'] / words['extended']:.2f} times fewer tokens"
        )
    return [Heading("Tokens"), Bullets(items)] if items else []


def _stages(done: Sequence[StageData]) -> list[Block]:
    if not done:
        return []
    rows = [
        [stage.name, trains(stage), number(stage.steps), number(stage.tokens), _rate(stage)] for stage in done
    ]
    return [Heading("Stages"), Table(["stage", "trained", "steps", "tokens", "learning rate"], rows, left=2)]


def _rate(stage: StageData) -> str:
    """The stage's learning rate, and those of an embedding matrix that has one of its own."""
    rates = {**(stage.record.get("learning_rates") or {})}
    rate = rates.pop("others", stage.settings.get("learning_rate", number(None)))
    own = [f"{matrix.removesuffix('_embeddings')} {number(each, 'g')}" for matrix, each in rates.items()]
    shown = number(rate, "g") if _is_number(rate) else str(rate)
    return f"{shown} ({', '.join(own)})" if own else shown


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


def _data(pipeline: PipelineData, done: Sequence[StageData]) -> list[Block]:
    """Data as the configs name it, with the stages that it was for."""
    used: dict[str, list[str]] = {}
    for source in (pipeline.manifest.get("settings") or {}).get("corpus") or []:
        used.setdefault(_source(source), []).append("tokenizer")
    for stage in done:
        for key in ("datasets", "pretraining_dataset"):
            for source in _several(stage.settings.get(key)):
                used.setdefault(_source(source), []).append(stage.label)
    if not used:
        return []
    items = [[Code(source), f": {', '.join(dict.fromkeys(users))}"] for source, users in used.items()]
    return [Heading("Data"), Paragraph("As named in the configs."), Bullets(items)]


def _several(value) -> list:
    return value if isinstance(value, list) else [value] if value else []


def _source(source) -> str:
    """A data set's name as the config has it; of an absolute path its last part."""
    if not isinstance(source, Mapping):
        source = {"path": source}
    path = str(source.get("path", ""))
    name = Path(path).name if path.startswith(("/", "~")) else path
    more = [str(source[key]) for key in ("name", "split") if source.get(key)]
    return f"{name} ({', '.join(more)})" if more else name


def _figures(pipeline: PipelineData, done: Sequence[StageData]) -> list[Block]:
    """Figures of the base, the extended model and the stages done: those that there are."""
    shown = pipeline.evaluated
    if not shown:
        return []
    names = [name for name in pipeline.text_names if any(each.text(name) for each in shown)]
    found: list[Block] = [
        Heading("Figures"),
        Paragraph("On held-out texts. Bits per byte can be compared across tokenizers; lower is better."),
        texts_table(shown, names),
    ]
    for name in names:
        table = new_tokens_table(shown, name)
        if table:
            found += [Heading(f"New tokens in {name}", 3), table]
    return found


def _limits(pipeline: PipelineData) -> list[Block]:
    """What it is not, and what it lost by the figures."""
    items: list[Inline] = ["It continues text. It was not tuned to follow instructions, or to refuse any."]
    last = pipeline.evaluated[-1] if pipeline.evaluated else None
    for name, kept in (last.retention if last else {}).items():
        if kept is not None and last is not None:
            items.append(
                f"Of the base model's {name}, {last.name} keeps {kept:.1%} (bits per byte; below 100% is a loss)."
            )
    items.append("What the base model gets wrong, and what is wrong in the data, it may get wrong too.")
    return [Heading("Limits"), Bullets(items)]


def _licence(pipeline: PipelineData) -> list[Block]:
    licence = _base_licence(pipeline)
    if not licence:
        return []
    name = licence.get("license_name") or licence["license"]
    return [
        Heading("Licence"),
        Paragraph(f"The base model's: {name}. The data may bind what is made of it further."),
    ]


def _versions(done: Sequence[StageData]) -> Bullets | None:
    versions: dict[str, list[str]] = {}
    for stage in done:
        for library, version in stage.versions.items():
            versions.setdefault(library, []).append(str(version))
    items = [f"{library} {', '.join(dict.fromkeys(each))}" for library, each in versions.items()]
    return Bullets(items) if items else None
