"""A newcomer's way: an installed package, a base, a folder of text; `init`, `run`, the model in three other programs.

Then what people do with the result: chat tuning on top, preference tuning on top of that, and another language on top.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from eeve_axolotl.files import read_json
from tests.conftest import tiny_llama
from tests.corpus.conftest import Maker, write_jsonl
from tests.e2e import llama_cpp, vllm
from tests.e2e.commands import Server
from tests.e2e.helpers import QLORA, RECIPE, write_recipe
from tests.wheels import build

pytestmark = pytest.mark.e2e

VERSION = "0.0.0+newcomer"
WRITTEN = 24  # tokens
ENGLISH = [
    "The weather is nice",
    "Once there was a small house",
    "It is a good day",
    "She went to the market",
    "Every morning the sun",
    "We like to read",
    "On the way home",
    "In the garden",
]
MATRICES = ("model.embed_tokens.weight", "lm_head.weight")

Run = Callable[..., str]
"""Runs `axolotl ARGUMENTS` in a directory, of the wheel's package; what it prints, if it ends well."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The wheel's package: it can be told from this tree by its version."""
    directory = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(build(directory)).extractall(directory / "installed")
    (directory / "installed/eeve_axolotl/version.py").write_text(f'__version__ = "{VERSION}"\n')
    server = Server().start(directory / "installed")

    def run(place: Path, *arguments: str) -> str:
        done = server.run([*arguments], place)
        assert done.returncode == 0, f"axolotl {' '.join(arguments)}\n{done.stdout[-4000:]}"
        return done.stdout

    yield run
    server.stop()


def write_base(source: Path, directory: Path) -> None:
    """A small model with SOLAR's tokenizer, whose own config says `legacy`."""
    shutil.copytree(source, directory)
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "legacy": True}))
    # vLLM's attention on a CPU knows no smaller heads than 32.
    tiny_llama(32000, initializer_range=0.2, head_dim=32).save_pretrained(directory)


@pytest.fixture(scope="module")
def road(run, tmp_path_factory, base_tokenizer_directory) -> tuple[Path, str]:
    """The project's directory, and the command that `init` printed for it and that has run there: no file was edited."""
    directory, maker = tmp_path_factory.mktemp("newcomer"), Maker(seed=3, nouns=40)
    write_base(base_tokenizer_directory, directory / "base")
    for folder, language, documents in (("korean", "ko", 60), ("english", "en", 40)):
        (directory / folder).mkdir()
        write_jsonl(directory / folder / "text.jsonl", [maker.document(language) for _ in range(documents)])
    made = run(
        directory, "eeve", "init", "mine", "--base", "base", "--corpus", "korean", "--language", "ko",
        "--keep", "English=english", "--gpus", "0", "--steps", "1", "--sequence-len", "64", "--global-batch", "2",
        "--new-tokens", "60",
    )  # fmt: skip
    where, command = re.fullmatch(r"cd (\S+) && axolotl (.+)", made.splitlines()[-1]).groups()
    run(directory / where, *command.split())
    return directory / where, command


@pytest.fixture(scope="module")
def project(road) -> Path:
    return road[0]


def test_no_file_is_edited_between_raw_text_and_the_report(run, road):
    project, command = road
    assert read_json(project / "corpus/eeve_corpus.json")["version"] == VERSION
    figures = {
        path.stem: read_json(path)["texts"]
        for path in (project / "outputs/pipeline/evaluation").glob("*.json")
    }
    assert {"base", "extended", "stage5", "stage6", "stage7"} == figures.keys()
    for name in ("base", "stage7"):
        assert figures[name].keys() == {"Korean", "English"}
    shorter = figures["stage7"]["Korean"]["tokens_per_character"]
    assert shorter < figures["base"]["Korean"]["tokens_per_character"] / 2
    assert (project / "outputs/pipeline/report/report.html").is_file()
    assert run(project, *command.split()).count("(done before)") == 13


def loaded(model: Path):
    """Model and tokenizer, as plain transformers reads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(model, dtype="float32"), AutoTokenizer.from_pretrained(model)


def greedy(model, ids: list[int], banned: Sequence[int] = ()) -> tuple[list[int], float]:
    """What plain transformers puts after some ids, none that is banned, and the least margin of a choice, in logits."""
    found = model.generate(
        torch.tensor([ids]),
        max_new_tokens=WRITTEN,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=[*banned] or None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    firsts = (each[0].topk(2).values for each in found.scores)
    return found.sequences[0, len(ids) :].tolist(), min(float(one - other) for one, other in firsts)


def test_llama_cpp_reads_and_writes_what_transformers_does(project):
    llama_cpp.needed()
    model, file = project / "outputs/stage7/merged", project / "model.gguf"
    done = llama_cpp.convert(model, file)
    assert done.returncode == 0, done.stdout[-3000:]
    ours, tokenizer = loaded(model)
    maker, old = Maker(seed=8, nouns=40), range(32000)
    korean = [maker.korean_sentence() for _ in range(16)]
    for prompts, banned in (
        (korean, ()),
        (ENGLISH, ()),
        (korean, old),  # with old ones banned, new ones
    ):
        # llama.cpp keeps keys and values in 16 bits, and behind most prompts so small a model is nearly undecided.
        prompt = max(prompts, key=lambda each: greedy(ours, tokenizer(each)["input_ids"], banned)[1])
        ids = tokenizer(prompt)["input_ids"]
        assert prompts is ENGLISH or max(ids) >= 32000  # new tokens too
        written, _ = greedy(ours, ids, banned)
        assert written and not {*written} & {*banned}
        (cut,) = llama_cpp.ask(file, ("tokenize", {"content": prompt, "add_special": True}))
        theirs, text = llama_cpp.continued(file, prompt, WRITTEN, banned)
        assert (cut["tokens"], theirs) == (ids, written)
        assert text.strip() == tokenizer.decode(written).strip()


def test_vllm_reads_and_writes_what_transformers_does(project):
    vllm.needed()
    model = project / "outputs/stage7/merged"
    ours, tokenizer = loaded(model)
    maker, old, new = Maker(seed=8, nouns=40), range(32000), range(32000, len(tokenizer))
    korean = [maker.korean_sentence() for _ in range(3)]
    with vllm.serve(model) as server:
        for prompts, banned, allowed in ((korean, (), ()), (ENGLISH[:3], (), ()), (korean, old, new)):
            for prompt in prompts:
                ids = tokenizer(prompt)["input_ids"]
                assert prompts is not korean or max(ids) >= 32000  # new tokens too
                written, _ = greedy(ours, ids, banned)
                read, theirs, text = server.continued(prompt, WRITTEN, allowed)
                assert (read, theirs) == (ids, written)
                assert text.strip() == tokenizer.decode(written, skip_special_tokens=True).strip()


def test_tokenizer_model_has_travelled_to_the_weights_with_the_new_tokens(project):
    from sentencepiece import SentencePieceProcessor

    model = project / "outputs/stage7/merged"
    pieces = SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    assert pieces.vocab_size() == read_json(model / "config.json")["vocab_size"] > 32000


# What `examples/chat.yml` says for a GPU, and for many conversations.
OF_A_GPU = ("attn_implementation", "warmup_ratio", "saves_per_epoch", "gradient_checkpointing_kwargs")
OF_A_STAGE = ("plugins", "trainer_cls", "datasets")
ANSWERS = {"hi": "hello there", "학교는?": "조용하다."}


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def said(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def chat(run, project) -> Path:
    """The result tuned on two questions by the packaged `chat.yml`, but for what a CPU needs; merged and completed."""
    (project / "chat").mkdir()
    lines = [{"messages": [*asked(question), said(answer)]} for question, answer in ANSWERS.items()]
    write_lines(project / "chat/text.jsonl", lines * 20)
    return tuned(run, project, "chat", max_steps=40, num_epochs=40)


def tuned(run: Run, project: Path, name: str, **keys) -> Path:
    """What the packaged recipe of that name makes, merged and completed."""
    run(project, "eeve", "recipes", ".", "--recipe", f"{name}.yml")
    recipe = yaml.safe_load((project / f"{name}.yml").read_text(encoding="utf-8"))
    for_a_cpu = {key: value for key, value in RECIPE.items() if key not in OF_A_STAGE} | QLORA
    recipe = {key: value for key, value in recipe.items() if key not in OF_A_GPU} | for_a_cpu
    recipe |= {"sample_packing": False, "sequence_len": 64, **keys}
    # Not on 4 bits: an adapter is merged into the full weights, and so small a model answers otherwise on these.
    recipe |= {"adapter": "lora", "load_in_4bit": False}
    (project / f"{name}.yml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    printed = run(project, "eeve", "check", f"{name}.yml")
    assert "plain Axolotl" in printed and "nothing would stop it" in printed
    run(project, "train", f"{name}.yml")
    run(project, "merge-lora", f"{name}.yml")
    merged = project / f"outputs/{name}/merged"
    before = load_file(merged / "model.safetensors")
    printed = run(project, "eeve", "complete", f"outputs/{name}/merged", "--tokenizer", "tokenizer")
    assert "added_tokens.json with <|im_end|>, <|im_start|>" in printed
    after = load_file(merged / "model.safetensors")
    assert all(torch.equal(before[each], after[each]) for each in before)
    return merged


def test_a_chat_tuned_model_has_template_and_tokens_answers_and_stops(project, chat):
    from transformers import AutoTokenizer

    (model, tokenizer), extended = loaded(chat), AutoTokenizer.from_pretrained(project / "tokenizer")
    added = {
        "<|im_end|>": len(extended),
        "<|im_start|>": len(extended) + 1,
    }  # the ids after the stages' tokens
    assert tokenizer.get_vocab() == {**extended.get_vocab(), **added}
    assert tokenizer.eos_token == "<|im_end|>"
    for question, answer in ANSWERS.items():
        prompt = tokenizer.apply_chat_template(asked(question), tokenize=False, add_generation_prompt=True)
        assert prompt == f"<s><|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        written, _ = greedy(model, tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert tokenizer.decode(written) == f"{answer}<|im_end|>"


def test_a_chat_tuned_model_answers_and_stops_in_vllm(chat):
    vllm.needed()
    _, tokenizer = loaded(chat)
    with vllm.serve(chat) as server:
        for question, answer in ANSWERS.items():
            prompt = tokenizer.apply_chat_template(
                asked(question), add_generation_prompt=True, return_dict=False
            )
            assert server.answered(asked(question)) == (prompt, answer, "stop")


def test_a_preferred_answer_becomes_likelier_and_no_row_moves(run, project, chat):
    """DPO by the packaged `dpo.yml`, of the other question's answer over the question's own."""
    (project / "preferences").mkdir()
    pairs = zip(ANSWERS, ANSWERS.values(), reversed(ANSWERS.values()), strict=True)
    lines = [
        {"messages": asked(question), "chosen": said(other), "rejected": said(own)}
        for question, own, other in pairs
    ]
    write_lines(project / "preferences/text.jsonl", lines * 10)
    preferred = tuned(run, project, "dpo", max_steps=20, learning_rate=2e-3)
    (before_it, of_chat), (after_it, tokenizer) = loaded(chat), loaded(preferred)
    assert tokenizer.get_vocab() == of_chat.get_vocab()
    before, after = (load_file(each / "model.safetensors") for each in (chat, preferred))
    assert all(torch.equal(before[name], after[name]) for name in MATRICES)
    for line in lines:
        margins = [
            margin(model, tokenizer, line["messages"], line["chosen"], line["rejected"])
            for model in (before_it, after_it)
        ]
        assert margins[1] > margins[0] + 0.5


@torch.no_grad()
def margin(model, tokenizer, messages, chosen, rejected) -> float:
    """By how many nats `chosen` is likelier than `rejected` after `messages`."""

    def likely(answer) -> float:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template([*messages, answer], return_dict=False)
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logits[n - 1, ids[n]]) for n in range(len(prompt), len(ids)))

    return likely(chosen) - likely(rejected)


def test_another_language_goes_on_top_and_leaves_the_first_ones_rows(run, project):
    words = "καλημέρα θάλασσα ουρανός γλώσσα δρόμος βουνό λουλούδι".split()
    write_jsonl(project / "greek.jsonl", [" ".join(words[n % 7 :] + words[: n % 5]) for n in range(60)])
    tokenizer = {"base": "outputs/stage7/merged", "output": "tokenizer2", "corpus": [{"path": "greek.jsonl"}],
                 "script": ["Greek"], "new_tokens": 30, "intermediate_vocab_size": 150, "min_count": 1}  # fmt: skip
    (project / "again.yml").write_text(yaml.safe_dump(tokenizer))
    run(project, "eeve", "tokenizer", "again.yml")
    text = [{"path": "./greek.jsonl", "type": "completion"}]
    changes = {"tokenizer_config": "./tokenizer2", "datasets": text, "output_dir": "./greek3"}
    run(project, "train", write_recipe(project, 3, "./outputs/stage7/merged", **changes))
    before, after = (
        load_file(project / name / "model.safetensors") for name in ("outputs/stage7/merged", "greek3")
    )
    for name in MATRICES:
        old = len(before[name])
        assert old > 32000 and len(after[name]) > old
        assert torch.equal(before[name], after[name][:old])
