"""What a result was made of is known by its content: texts however they are named, and what a tokenizer was built from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import inputs
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline.runs import Run
from eeve_axolotl.records import TOKENIZER_MANIFEST
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import build as building
from eeve_axolotl.tokenizer.origin import files_of, made_of
from eeve_axolotl.tokenizer.settings import WHERE_AND_HOW, TokenizerSettings
from tests.faults.grounds import Launcher, chain, write_ground


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace(path: Path, content: str | None = None) -> None:
    """Other content of the same size and time, as `cp -p` or a careful editor leaves it."""
    at, before = path.stat(), path.read_text()
    path.write_text(before[:-3] + "~" + before[-2:] if content is None else content)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert path.read_text() != before


def put(path: str, content: str = '{"text": "one"}\n') -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    return Path(path)


TEXTS = {  # how a recipe names a text -> the file that is replaced
    "a file": ({"path": "d/a.jsonl"}, "d/a.jsonl"),
    "a directory": ({"path": "d"}, "d/deep/b.jsonl"),
    "a link to a directory": ({"path": "link"}, "d/deep/b.jsonl"),
    "a link inside a directory": ({"path": "e"}, "d/deep/b.jsonl"),
    "a pattern": ({"path": "d/*.jsonl"}, "d/a.jsonl"),
    "a pattern over directories": ({"path": "d/**/*.jsonl"}, "d/deep/b.jsonl"),
    "a file of a directory": ({"path": "d", "data_files": "deep/b.jsonl"}, "d/deep/b.jsonl"),
    "files of a kind": ({"path": "json", "data_files": ["d/a.jsonl", "d/deep/b.jsonl"]}, "d/deep/b.jsonl"),
    "a pattern of files of a kind": ({"path": "json", "data_files": "d/**/*.jsonl"}, "d/deep/b.jsonl"),
    "files by split": ({"path": "json", "data_files": {"train": ["d/a.jsonl"]}}, "d/a.jsonl"),
    "a directory of a directory": ({"path": "d", "data_dir": "deep"}, "d/deep/b.jsonl"),
}
KEYS: dict[str, Callable[[dict], object]] = {
    "datasets": lambda text: [{"path": "text.jsonl", "type": "completion"}, {**text, "type": "completion"}],
    "test_datasets": lambda text: [text],
    "pretraining_dataset": lambda text: text,
}


def write(key: str, text: dict) -> None:
    write_ground(Path())
    put("d/a.jsonl")
    put("d/deep/b.jsonl")
    put("d/.cache/hidden")
    put("e/c.jsonl")
    Path("link").symlink_to("d")
    Path("e/there").symlink_to("../d")
    Path("d/deep/back").symlink_to("..")  # a link that leads back ends nowhere
    cfg = yaml.safe_load(Path("stage3.yml").read_text())
    Path("stage3.yml").write_text(yaml.safe_dump({**cfg, key: KEYS[key](text)}))


def run(begin: str | None = None) -> list[str]:
    launcher = Launcher()
    chain(Path(), launcher).run(begin)
    return launcher.trained()


@pytest.mark.slow
@pytest.mark.parametrize("named", TEXTS)
@pytest.mark.parametrize("key", KEYS)
def test_a_replaced_text_is_named_and_trained_on_anew(here, key, named):
    text, file = TEXTS[named]
    write(key, text)
    assert run() == ["stage3"] and run() == []
    put("d/.cache/hidden", "another")
    put("d/cache-0123.arrow", "what `datasets` keeps there")
    caches = set(here.glob("prepared/*"))
    replace(Path(file))
    with pytest.raises(
        EEVEError, match=f"stage3.yml is done, but since then .*{Path(file).name} has another content"
    ):
        run()
    assert run(begin="3") == ["stage3"] and run() == []
    assert len(set(here.glob("prepared/*")) - caches) == 1  # nothing of the old text's


def test_a_file_that_came_or_went_is_said_to(here):
    write("datasets", {"path": "d"})
    run()
    put("d/new.jsonl")
    Path("d/a.jsonl").unlink()
    with pytest.raises(EEVEError, match="d/a.jsonl is gone; d/new.jsonl is new"):
        run()


@pytest.fixture
def hub(here, monkeypatch) -> Callable[[str, str], None]:
    """A hub's cache, and a way to put a commit into it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    return lambda ref, commit: put(f"hub/{ref}", commit) and None


def test_a_dataset_of_the_hub_is_known_by_its_commit(here, hub):
    write("datasets", {"path": "org/text"})

    class Fetching(Launcher):  # what is not in the cache before the first training is there after it
        def __call__(self, arguments, log, on_step):
            hub("datasets--org--text/refs/main", "c1")
            return super().__call__(arguments, log, on_step)

    chain(here, Fetching()).run()
    assert run() == []
    hub("datasets--org--text/refs/main", "c2")
    with pytest.raises(EEVEError, match="org/text has another content"):
        run()


@pytest.mark.parametrize("keys, ref", [
    ({"datasets": [{"path": "org/text", "revision": "v1"}]}, "datasets--org--text/refs/v1"),
    ({"base_model": "org/base"}, "models--org--base/refs/main"),
    ({"base_model": "org/base", "revision_of_model": "v2"}, "models--org--base/refs/v2"),
    ({"tokenizer_config": "org/words"}, "models--org--words/refs/main"),
])  # fmt: skip
def test_what_is_on_the_hub_is_known_by_the_commit_of_its_branch(here, hub, keys, ref):
    write_ground(here)
    cfg = {**yaml.safe_load(Path("stage3.yml").read_text()), **keys}
    Path("stage3.yml").write_text(yaml.safe_dump(cfg))
    states = []
    for commit in ("c1", "c2"):
        hub(ref, commit)
        hub(ref.rsplit("/", 1)[0] + "/other", "moves too")
        states.append(Run.read("stage3.yml").state()["inputs"])
    assert inputs.changes(*states) == [
        f"{name} has another content" for name in states[0] if name.startswith("org/")
    ]
    assert inputs.changes(states[0], states[0]) == [] and inputs.changes(*states)


def test_a_revision_that_is_a_commit_needs_no_cache(hub):
    assert inputs.of_datasets([{"path": "org/text", "revision": "abc"}]) == {"org/text@abc": "revision abc"}


# --- in the middle of a training ---


def test_a_text_replaced_while_a_training_is_interrupted_is_not_gone_on_with(here):
    write_ground(here)

    def killed(arguments, log, on_step):
        put("out3/checkpoint-1/eeve_whole", "")
        return -9

    with pytest.raises(EEVEError, match="was killed"):
        chain(here, killed).run()
    cfg = yaml.safe_load(Path("stage3.yml").read_text())
    Path("stage3.yml").write_text(yaml.safe_dump({**cfg, "micro_batch_size": 1}))  # after a lack of memory
    with pytest.raises(EEVEError, match="was killed"):
        chain(here, killed).run()
    replace(Path("text.jsonl"))
    with pytest.raises(
        EEVEError, match="stage3.yml is trained in part, but since then text.jsonl has another.*--from 3"
    ):
        run()
    assert run(begin="3") == ["stage3"] and run() == []


# --- what a tokenizer was built from ---


@pytest.fixture
def built(here) -> Path:
    """A chain that begins with a tokenizer, whose manifest says what a build says of it (tests/e2e builds one)."""
    write_ground(here)
    put("base/tokenizer_config.json", "{ }")
    put("base/tokenizer.model", "model")
    put("words/a.jsonl")
    put("words/notes.md", "no text of the corpus's")
    put("more.txt", "more")
    put("allow.txt", "▁학교\n")
    shutil.copytree("base", "new", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    corpus = [{"path": "words"}, {"path": "more.txt"}]
    keys = {"base": "base", "output": "new", "corpus": corpus, "allow": "allow.txt"}
    put("tokenizer.yml", yaml.safe_dump(keys))
    settings = TokenizerSettings(**keys)
    manifest = {"base_vocab_size": 1, "settings": settings.model_dump(mode="json", exclude=WHERE_AND_HOW)}
    origin = {"made_of": made_of(settings), "files": files_of(Path("new"))}
    put(f"new/{TOKENIZER_MANIFEST}", json.dumps({**manifest, **origin}))
    return here


def check() -> None:
    chain(Path(), tokenizer="tokenizer.yml").check_unchanged()


MADE_OF = {  # what is replaced, and how
    "words/a.jsonl": None,
    "more.txt": None,
    "allow.txt": "▁지금\n",
    "base/config.json": '{"model_type": "mistral"}',
    "base/tokenizer.json": "{}",
    "base/tokenizer_config.json": "{}",
    "base/tokenizer.model": "x",
}


@pytest.mark.parametrize("file", MADE_OF)
def test_a_tokenizer_is_not_done_when_what_it_was_built_from_has_changed(built, file):
    check()
    if MADE_OF[file] is None:
        replace(Path(file))
    else:
        Path(file).write_text(MADE_OF[file])
    with pytest.raises(
        EEVEError, match=f"new is built, but since then .*{file} has another content.*remove new"
    ):
        check()
    with pytest.raises(
        EEVEError, match=f"new exists, and since it was built {file} has another content; .*overwrite"
    ):
        building.build(TokenizerSettings(**yaml.safe_load(Path("tokenizer.yml").read_text())))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_whose_files_are_not_as_they_were_written_is_not_done(built, file):
    path = Path("new", file)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(EEVEError, match=f"new/{file} is not as it was written.*remove new"):
        check()


def test_a_corpus_that_is_gone_is_none_that_has_changed(built):
    put("words/notes.md", "another")
    check()
    put("words/b.jsonl")
    with pytest.raises(EEVEError, match="words/b.jsonl is new"):
        check()
    shutil.rmtree("words")
    check()


def test_a_manifest_of_an_earlier_version_tells_less(built):
    path = Path("new", TOKENIZER_MANIFEST)
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({key: manifest[key] for key in manifest if key not in ("made_of", "files")}))
    replace(Path("more.txt"))
    check()


def test_counts_of_a_replaced_text_are_not_used_again(here):
    text = put("a.jsonl")
    before = Source(path="a.jsonl").shards()[0].identity()
    os.utime(text)
    assert Source(path="a.jsonl").shards()[0].identity() == before
    replace(text)
    assert Source(path="a.jsonl").shards()[0].identity() != before
