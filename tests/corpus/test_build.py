"""`axolotl eeve corpus` from files to shards: what was planted is found and counted, and a killed run ends the same."""

from __future__ import annotations

import gc
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import dill
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.corpus import build as corpus
from eeve_axolotl.corpus import steps
from eeve_axolotl.corpus.manifest import check_recipe, held_out_file, tokenizer_identity
from eeve_axolotl.corpus.origin import what_changed
from eeve_axolotl.corpus.plan import make_plan
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.corpus.steps import group_filters
from eeve_axolotl.corpus.store import records
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import beside, read_json
from eeve_axolotl.records import CORPUS_MANIFEST
from eeve_axolotl.tokenizer import build as tokenizer
from eeve_axolotl.tokenizer.curation import read_list
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.conftest import ROOT
from tests.corpus.conftest import Maker, make_settings, texts, write_jsonl
from tests.faults.grounds import plant, unharmed

MENU = "이 사이트의 모든 글은 회원만 볼 수 있습니다. 자세한 것은 안내를 보십시오."


def only_korean(path: Path, **changes) -> dict:
    """A mix of one Korean group that reads `path`."""
    return {"korean": {"share": 1.0, "language": "ko", "sources": [{"path": str(path)}], **changes}}


def shards(output: Path) -> dict[str, bytes]:
    """The bytes of every shard."""
    return {str(file.relative_to(output)): file.read_bytes() for file in sorted(output.glob("*/*.parquet"))}


def seen(output: Path) -> dict[str, int]:
    """Documents per reason, over all steps, of the group `korean`."""
    steps = read_json(output / CORPUS_MANIFEST)["steps"].values()
    return {reason: entry[0] for step in steps for reason, entry in step.get("korean", {}).items()}


def test_whole_run(settings):
    output = corpus.build(settings())
    manifest = read_json(output / CORPUS_MANIFEST)
    for name, entry in manifest["groups"].items():
        assert entry["share"] == pytest.approx(entry["asked"], abs=0.01), name
    given = sum(entry["given"] for entry in manifest["groups"].values())
    assert 0.95 * manifest["budget"] < given <= manifest["budget"]
    train, held_out = texts(output, "train"), texts(output, "held_out")
    assert len(train) == sum(entry["documents"] for entry in manifest["groups"].values())
    assert sum(len(text.encode()) for text in train) == sum(e["bytes"] for e in manifest["groups"].values())
    assert len(held_out) == sum(e["documents"] for e in manifest["held_out"]["groups"].values()) > 0
    for group, entry in manifest["held_out"]["groups"].items():  # a file for each, where an evaluation looks
        rows = list(records(held_out_file(output, group)))
        assert {row["group"] for row in rows} == {group} and len(rows) == entry["documents"]
    assert what_changed(manifest, settings()) == []
    assert manifest["held_out"]["passages"] > 0 and manifest["held_out"]["passages_in_train"] == 0
    assert not set(train) & set(held_out)
    assert any("\n" in text and text.isascii() is False and text[0].isascii() for text in train)  # pairs
    assert not list(output.parent.glob("*.unfinished"))
    report = (output / "README.md").read_text("utf-8")
    assert "| korean | coverage | 50.00% |" in report and (output / "new_tokens.png").stat().st_size


def test_a_tokenizer_that_changes_is_another_one(tokenizer_directory, tmp_path):
    file = tmp_path / "tokenizer.json"
    text = (tokenizer_directory / "tokenizer.json").read_text("utf-8")
    file.write_text(text, "utf-8")
    before = tokenizer_identity(tmp_path)
    assert before == tokenizer_identity(tokenizer_directory)
    state = json.loads(text)
    state["model"]["byte_fallback"] = not state["model"]["byte_fallback"]
    file.write_text(json.dumps(state), "utf-8")
    assert tokenizer_identity(tmp_path) != before


def test_a_run_leaves_the_garbage_collector_as_it_was():
    thresholds = gc.get_threshold()
    for frozen in (False, True):  # what a caller has frozen stays so
        gc.unfreeze()
        if frozen:
            gc.freeze()
        try:
            with pytest.raises(KeyboardInterrupt), corpus.seldom_collected():
                assert gc.get_threshold() != thresholds and gc.get_freeze_count()
                raise KeyboardInterrupt
            assert gc.get_threshold() == thresholds and bool(gc.get_freeze_count()) is frozen
        finally:
            gc.freeze()  # as tests/conftest.py has it


def test_table_of_new_tokens_counts_the_shards(settings, tokenizer_directory):
    """What the table says each token has in the chosen text is what the shards hold."""
    from transformers import AutoTokenizer

    output = corpus.build(settings())
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    counted: dict[int, int] = {}
    for text in texts(output, "train"):
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            counted[token] = counted.get(token, 0) + 1
    table = pq.read_table(output / "tokens.parquet").to_pylist()
    assert {row["id"]: row["chosen"] for row in table} == {
        row["id"]: counted.get(row["id"], 0) for row in table
    }
    short = read_list(output / "short_of_text.txt")
    rare = [row for row in table if row["in_corpus"] < row["target"]]
    assert short == [row["token"] for row in sorted(rare, key=lambda row: row["in_corpus"])] and short


def test_tokens_short_of_text_are_a_list_that_the_tokenizer_denies(
    sources, base_tokenizer_directory, tmp_path
):
    wanted = TokenizerSettings(
        base=str(base_tokenizer_directory),
        output=str(tmp_path / "tokenizer"),
        corpus=[{"path": f"{sources}/ko-*.jsonl"}],
        intermediate_vocab_size=1000,
        new_tokens=300,
        min_count=2,
    )
    tokenizer.build(wanted)
    made = make_settings(sources, tmp_path / "tokenizer", tmp_path, choose={"target": 40})
    short = tmp_path / "corpus" / "short_of_text.txt"
    corpus.build(made)
    dropped = set(read_list(short))
    first, second = tmp_path / "tokenizer", tmp_path / "without"
    assert dropped and dropped < read_json(first / "eeve_tokenizer.json")["counts"].keys()
    tokenizer.build(wanted.model_copy(update={"output": str(second), "deny": [str(short)]}))
    again = read_json(second / "eeve_tokenizer.json")["counts"].keys()
    assert not dropped & again and len(again) > 50


def test_planted_text_is_found_and_counted(settings, tmp_path):
    maker, korean = Maker(seed=11), []
    korean = [maker.document("ko") for _ in range(100)]
    for number in range(12):  # a menu line in 12 documents, the rest of which stays
        korean[number] = f"{MENU}\n{korean[number]}"
    benchmark = [maker.korean_sentence(12) for _ in range(4)]
    for number, line in enumerate(benchmark):  # leaked into 4 documents, which lose that line
        korean[20 + number] += f"\n{line}"
    planted = [
        *(
            f"{MENU}\n{word} 알림과 소식, 그리고 자주 하는 물음에 답합니다." for word in "가나다라마바사"
        ),  # 7 menus
        *korean[40:45],  # 5 exact copies
        *(text.replace(".", "!", 1) + " " + maker.nouns[7] for text in korean[50:53]),  # 3 near copies
        *("\n".join([maker.korean_sentence()] * 9) for _ in range(6)),  # 6 that repeat one line
        *(maker.document("en") for _ in range(8)),  # 8 of another language
        *(" ".join(maker.nouns[i::15]) + " ." for i in range(9)),  # 9 lists of keywords
        *("짧은 글입니다." for _ in range(2)),  # 2 too short
    ]
    write_jsonl(tmp_path / "ko.jsonl", korean + planted)
    write_jsonl(tmp_path / "benchmark.jsonl", benchmark)
    output = corpus.build(
        settings(
            mix=only_korean(tmp_path / "ko.jsonl"),
            deduplicate={"repeated_lines": 15},
            held_out={"share": 0.05, "protect": [{"path": f"{tmp_path}/benchmark.jsonl"}]},
            budget={"share": 1.0},
        )
    )
    counted = seen(output)
    kept = texts(output, "train") + texts(output, "held_out")
    assert counted["read"] == 140
    assert counted["boilerplate: mostly repeated lines"] == 7 and counted["lines cut"] == 12
    assert counted["duplicates: exact copy"] == 5 and counted["duplicates: near copy"] == 3
    assert counted["repetition: dup_line_frac"] == 6
    assert counted["language: few letters of its script"] == 8
    assert counted["stopwords: few stopwords"] == 9
    assert counted["length: too short"] == 2
    assert counted["held out"] == 5
    assert MENU not in "\n".join(kept) and len(kept) == 100
    leaks = [line for line in benchmark if line in "\n".join(texts(output, "train"))]
    assert not leaks and counted["leaks: held-out passages cut"] >= 1
    report = (output / "README.md").read_text("utf-8")
    assert "duplicates: near copy | 3 |" in report and "`" + MENU[:20] in report
    funnel = re.findall(r"\| korean \| ([^|]+) \| ([\d,]*) \| [^|]* \| ([\d,]+) \|", report)
    assert funnel[0] == ("**read**", "", "140") and funnel[-1] == ("**chosen**", "", "95")
    assert [name.split(":")[0] for name, _, _ in funnel[1:-1]] == [
        *("length", "language", "stopwords", "repetition", "boilerplate", "lines cut"),
        *("duplicates", "duplicates", "leaks", "held out"),
    ]
    assert funnel[-2][2] == "95"  # what each took away and what it left add up


def test_the_report_says_how_often_each_stage_sees_a_token(settings, tmp_path):
    recipe = {"sequence_len": 128, "micro_batch_size": 2, "gradient_accumulation_steps": 3, "max_steps": 10}
    several = {"stages": [{"stage": 1, "max_steps": 5}, {"stage": 2, "max_tokens": 5_000}]}
    (tmp_path / "one.yml").write_text(yaml.safe_dump({**recipe, "eeve": {"stage": 3}}))
    (tmp_path / "two.yml").write_text(yaml.safe_dump({**recipe, "eeve": several}))
    (tmp_path / "epochs.yml").write_text(yaml.safe_dump({"num_epochs": 2}))
    (tmp_path / "again.yml").write_text(yaml.safe_dump({**recipe, "eeve": {"stage": 4, "text": "again"}}))
    names = ["one.yml", "two.yml", "epochs.yml", "again.yml"]
    output = corpus.build(settings(stages={"recipes": [f"{tmp_path}/{name}" for name in names], "gpus": 4}))
    table = pq.read_table(output / "tokens.parquet")
    epoch = sum(entry["tokens"] for entry in read_json(output / CORPUS_MANIFEST)["groups"].values())
    a_step = 128 * 2 * 3 * 4
    readme = (output / "README.md").read_text("utf-8")
    for label, tokens, start in (
        ("one.yml", 10 * a_step, 0),
        ("two.yml, stage 1", 5 * a_step, 10 * a_step),
        ("two.yml, stage 2", 2 * a_step, 15 * a_step),  # the first step that reaches 5,000
        ("epochs.yml", 2 * epoch, 0),  # knows nothing of stages
        ("again.yml", 10 * a_step, 0),
    ):
        expected = table["chosen"].to_numpy() * tokens / epoch
        assert table[f"expected in {label}"].to_pylist() == pytest.approx(expected.tolist()), label
        part = f"{start / epoch:,.2f} to {(start + tokens) / epoch:,.2f}"
        assert f"| {label} | {tokens:,} | {part} |" in readme
    read = 10 * a_step + 5 * a_step + 2 * a_step + 2 * epoch + 10 * a_step
    assert f"read 100% of the corpus, {read / epoch:,.1f} times on average." in readme


def test_a_recipe_that_cannot_be_read_is_told_before_the_work(settings, tmp_path):
    (tmp_path / "stage.yml").write_text("eeve: {stage: 9}")
    for recipe, message in {
        "nothing.yml": "does not exist",
        "stage.yml": "the `eeve:` block: stage 9 does not exist",
    }.items():
        with pytest.raises(EEVEError, match=f"{recipe}.*{message}"):
            corpus.build(settings(stages={"recipes": [f"{tmp_path}/{recipe}"]}))
    assert not (tmp_path / "work").exists()


def test_a_line_of_the_held_out_text_is_cut_from_the_training_text(settings, tmp_path):
    """A held-out document quoted in others: they are trained on without the quotation."""
    maker = Maker(seed=12)
    korean = [maker.document("ko") for _ in range(60)]
    write_jsonl(tmp_path / "ko.jsonl", korean)
    plain = corpus.build(settings(mix=only_korean(tmp_path / "ko.jsonl"), output=str(tmp_path / "plain")))
    quoted = texts(plain, "held_out")[0].split("\n")[1]
    quoting = [maker.document("ko") + f"\n{quoted}" for _ in range(5)]
    write_jsonl(tmp_path / "ko.jsonl", korean + quoting)
    output = corpus.build(
        settings(mix=only_korean(tmp_path / "ko.jsonl"), budget={"share": 1.0}, held_out={"share": 0.045})
    )
    assert any(quoted in text for text in texts(output, "held_out"))
    assert not any(quoted in text for text in texts(output, "train"))
    assert 4 <= seen(output)["leaks: held-out passages cut"] <= 5
    assert read_json(output / CORPUS_MANIFEST)["held_out"]["passages_in_train"] == 0


def test_same_inputs_give_the_same_shards(settings, tmp_path):
    first = shards(corpus.build(settings()))
    assert len(first) == 3 + 3  # and held-out text, a file for each group
    again = settings(output=str(tmp_path / "again"), work=str(tmp_path / "other"))
    assert shards(corpus.build(again)) == first
    other = settings(output=str(tmp_path / "seed"), work=str(tmp_path / "other"), seed=1)
    assert shards(corpus.build(other)) != first


@pytest.fixture(scope="module")
def never_interrupted(sources, tokenizer_directory, tmp_path_factory) -> dict[str, bytes]:
    """The shards of a run without interruption."""
    directory = tmp_path_factory.mktemp("whole")
    return shards(corpus.build(make_settings(sources, tokenizer_directory, directory)))


HALF = {
    "Filter": "00001.parquet",
    "Score": "00001.parquet",
    "Shuffle": "train/00001.parquet",
    "Publish": CORPUS_MANIFEST,
}


@pytest.mark.parametrize("step", HALF)
def test_an_interrupted_run_takes_up_where_it_was(settings, never_interrupted, monkeypatch, step):
    """Stopped in the second task of a step (the report has one only), with a file half-written."""
    cls, stop_at = getattr(steps, step), 0 if step == "Publish" else 1
    work, began = cls.work, []

    def stops(self, rank):
        began.append(rank)
        if rank < stop_at:
            return work(self, rank)
        staging = Path(self.plan.staging)
        half = (staging if step in ("Shuffle", "Publish") else self.plan.folder(self.name)) / HALF[step]
        beside(half).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cls, "work", stops)
    with pytest.raises(KeyboardInterrupt):
        corpus.build(settings())
    assert not Path(settings().output).exists()  # what is not whole is not there
    again = []
    monkeypatch.setattr(cls, "work", lambda self, rank: again.append(rank) or work(self, rank))
    output = corpus.build(settings())
    assert shards(output) == never_interrupted
    assert again and not set(again) & set(began[:-1])  # what was done is not done again
    assert not list(output.rglob("*.unfinished"))


KILLED_IN_A_SHARD = """
import os, signal, sys
from eeve_axolotl.corpus import build, settings, store

def killed(self, kind, *_):
    if self.path.name == "00001.parquet" and self.path.parent.name == "train":
        os.kill(os.getpid(), signal.SIGKILL)
    return leave(self, kind, *_)

leave, store.Writer.__exit__ = store.Writer.__exit__, killed
build.build(settings.CorpusSettings.model_validate_json(sys.stdin.read()))
"""


def test_a_killed_run_takes_up_where_it_was(settings, never_interrupted):
    """Killed while the second shard is open: the process gets no chance to clean up."""
    wanted = settings()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_SHARD], input=wanted.model_dump_json(), text=True, cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL
    staging = Path(make_plan(wanted).staging)
    assert (staging / "train" / "00000.parquet").is_file() and not Path(wanted.output).exists()
    assert not (staging / "train" / "00001.parquet").exists()
    first = (staging / "train" / "00000.parquet").stat().st_mtime_ns
    output = corpus.build(wanted)
    assert shards(output) == never_interrupted
    assert (output / "train" / "00000.parquet").stat().st_mtime_ns == first


def test_other_settings_compute_only_what_depends_on_them(settings, tmp_path, monkeypatch):
    corpus.build(settings())
    done = []
    for cls in (steps.Filter, steps.Score, steps.Shuffle):
        work = cls.work
        monkeypatch.setattr(cls, "work", lambda s, rank, work=work: done.append(s.name) or work(s, rank))
    corpus.build(settings(output=str(tmp_path / "less"), budget={"share": 0.25}))
    assert set(done) == {"shards"}


def test_two_workers_give_the_same_shards(settings, never_interrupted):
    assert shards(corpus.build(settings(executor={"workers": 2}))) == never_interrupted


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray cluster of this machine."""
    ray = pytest.importorskip("ray")
    from datatrove.executor.ray import RayTaskManager

    wait = RayTaskManager.wait  # datatrove looks every ten seconds whether a task has a worker
    often = lambda self, tasks, num_returns, timeout: wait(self, tasks, 0.1, num_returns)  # noqa: E731
    monkeypatch.setattr(RayTaskManager, "wait", often)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers
    monkeypatch.setenv(
        "RAY_worker_niceness", "0"
    )  # 15 unless told: other tests beside this one would starve them
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_of_a_cluster_give_the_same_shards(settings, never_interrupted):
    executor = {"kind": "ray", "workers": 2, "options": {"mem_per_cpu_gb": 0.1}}
    assert shards(corpus.build(settings(executor=executor))) == never_interrupted


SBATCH = """#!/bin/sh
number=$(($(ls "$QUEUE" | wc -l) + 1))
{ echo "$@"; cat "$(eval echo \\${$#})"; } > "$QUEUE/$(printf %03d $number)"
echo "Submitted batch job $number"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The commands of a Slurm cluster that only queues: each job's arguments and script as a file, by its number."""
    for name, script in {"sbatch": SBATCH, "scontrol": "#!/bin/sh\necho localhost\n"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "queue").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    return tmp_path / "queue"


def test_slurms_jobs_run_one_after_the_other_give_the_same_shards(
    settings, never_interrupted, slurm, tmp_path, monkeypatch
):
    executor = {"kind": "slurm", "workers": 2, "options": {"partition": "cpu", "time": "01:00:00"}}
    told = corpus_command(tmp_path / "corpus.yml", settings(executor=executor))
    assert told.exit_code == 0 and "queued" in told.output
    assert not Path(settings().output).exists()
    jobs, before = {job.name: job.read_text() for job in sorted(slurm.iterdir())}, None
    jobs = {number: script for number, script in jobs.items() if "merge_stats" not in script}
    assert len(jobs) == 12
    for number, script in jobs.items():
        assert "--partition=cpu" in script and "--time=01:00:00" in script
        assert before is None or f"--dependency=afterok:{int(before)} " in script.splitlines()[0]
        tasks = int(re.search(r"--array=0-(\d+)%", script)[1]) + 1
        for task in range(tasks):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
            pickled = re.search(r"launch_pickled_pipeline (\S+)", script)[1]
            dill.loads(Path(pickled).read_bytes()).run()
        before = number
    assert shards(Path(settings().output)) == never_interrupted


def test_slurm_without_its_partition_is_refused(settings):
    with pytest.raises(EEVEError, match="executor.options for slurm lacks partition and time"):
        corpus.build(settings(executor={"kind": "slurm"}))


def corpus_command(path: Path, settings: CorpusSettings):
    """What `axolotl eeve corpus` says to these settings."""
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")), "utf-8")
    return CliRunner().invoke(eeve, ["corpus", str(path)])


def test_the_command(settings, never_interrupted, tmp_path):
    wanted = settings()
    told = corpus_command(tmp_path / "corpus.yml", wanted)
    assert told.exit_code == 0 and "README.md" in told.output
    assert shards(Path(wanted.output)) == never_interrupted
    told = corpus_command(tmp_path / "corpus.yml", wanted)
    assert told.exit_code == 1 and "exists already" in told.output and "Traceback" not in told.output
    planted = plant(Path(wanted.output) / "mine")
    (Path(wanted.output) / "NOTES.md").write_text("mine")
    told = corpus_command(tmp_path / "corpus.yml", wanted.model_copy(update={"overwrite": True}))
    assert told.exit_code == 0 and unharmed(Path(wanted.output) / "mine", planted)
    assert (Path(wanted.output) / "NOTES.md").read_text() == "mine"
    assert shards(Path(wanted.output)) == never_interrupted


def test_an_output_that_is_not_ours_is_never_overwritten(settings, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "thesis.txt").write_text("years of work")
    with pytest.raises(EEVEError, match="not a corpus of ours"):
        corpus.build(settings(overwrite=True))
    assert (tmp_path / "corpus" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "one"}\n{"text": \n', "bad.jsonl.*line 2"),
        ("column.jsonl", b'{"body": "one"}\n', "column.jsonl.*line 1.*'text'"),
        (
            "encoding.jsonl",
            b'{"text": "one"}\n{"text": "\xff\xfe"}\n',
            "encoding.jsonl, line 2: not a JSON object",
        ),
        ("cut.jsonl.gz", gzip.compress(b'{"text": "one"}\n' * 9, mtime=0)[:30], "cut.jsonl.gz"),
        ("not.parquet", b"PAR1 and no more", "not.parquet"),
    ],
)
def test_a_broken_input_is_named_with_file_and_line(settings, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    wanted = settings(mix=only_korean(tmp_path / name))
    told = corpus_command(tmp_path / "corpus.yml", wanted)
    assert told.exit_code == 1 and re.search(message, told.output) and "Traceback" not in told.output
    assert not Path(wanted.output).exists()


def test_a_broken_input_is_named_by_a_worker_too(settings, tmp_path):
    """Not every executor brings a task's exception back to the command."""
    write_jsonl(tmp_path / "ko-0.jsonl", [Maker().document()])
    (tmp_path / "ko-1.jsonl").write_text('{"text": "one"}\n{"text": \n')
    told = corpus_command(
        tmp_path / "corpus.yml",
        settings(mix=only_korean(tmp_path / "ko-*.jsonl"), executor={"workers": 2}),
    )
    assert told.exit_code == 1 and re.search("ko-1.jsonl.*line 2", told.output)


def test_an_aligned_record_without_a_side_is_named(settings, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"en": "a", "ko": "b"}\n{"en": "a"}\n')
    mix = {
        "parallel": {"share": 1, "template": "{en} {ko}", "sources": [{"path": f"{tmp_path}/pairs.jsonl"}]}
    }
    with pytest.raises(EEVEError, match="pairs.jsonl, line 2: no column 'ko' for the template"):
        corpus.build(settings(mix=mix))


def test_a_mix_that_the_corpus_cannot_give_says_which_group_is_short(settings):
    with pytest.raises(EEVEError, match="'(korean|english|parallel)' has .* for its share"):
        corpus.build(settings(budget={"bytes": "10MB"}))


def test_no_record_is_longer_than_axolotl_reads(settings, tokenizer_directory):
    """Under streaming a record may have sequence_len tokens: longer documents become several, and lose nothing."""
    from transformers import AutoTokenizer

    long = corpus.build(settings(budget={"share": 1.0}, write={"shards": 1}))
    whole = "".join(sorted("".join(texts(long, "train"))))
    wanted = settings(
        budget={"share": 1.0},
        write={"shards": 1, "sequence_len": 128, "read_as": "streaming"},
        overwrite=True,
    )
    output = corpus.build(wanted)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    lengths = [len(ids) for ids in tokenizer(texts(output, "train"))["input_ids"]]
    assert 64 < max(lengths) <= 127  # with bos, and room for eos
    assert "".join(sorted("".join(texts(output, "train")))) == whole


def test_the_recipe_must_have_the_tokenizer_and_the_length_of_the_corpus(settings, base_tokenizer_directory):
    output = corpus.build(settings())
    recipe = {"tokenizer_config": settings().tokenizer, "sequence_len": 4096, "base_model": "org/model"}
    for data in (
        {"datasets": [{"path": str(output), "type": "completion"}]},
        {"datasets": [{"path": "parquet", "data_files": f"{output}/train/*.parquet"}]},
        {"test_datasets": [{"path": str(output)}]},
    ):
        check_recipe({**recipe, **data})
        with pytest.raises(EEVEError, match="was made with the tokenizer .* set tokenizer_config"):
            check_recipe({**recipe, **data, "tokenizer_config": str(base_tokenizer_directory)})
        with pytest.raises(EEVEError, match="sequence_len: 512"):
            check_recipe({**recipe, **data, "sequence_len": 512})
    with pytest.raises(EEVEError, match="read_as: streaming"):
        check_recipe({**recipe, "pretraining_dataset": str(output)})


def test_the_example_is_read():
    """Its keys are known, and the recipes whose tokens the report counts are there."""
    from eeve_axolotl.corpus.plan import stage_tokens
    from eeve_axolotl.settings import read_yaml

    settings = read_yaml(ROOT / "examples" / "corpus.yml", CorpusSettings)
    assert list(settings.mix) == ["korean", "english", "parallel"]
    paths = {name: [source.path for source in group.sources] for name, group in settings.mix.items()}
    assert paths == {name: [f"./text/{name}"] for name in settings.mix}
    assert settings.budget.bytes == 6_700_000_000
    assert len(group_filters(settings.mix["korean"], Path())) > len(
        group_filters(settings.mix["parallel"], Path())
    )
    for recipe in settings.stages.recipes:
        # 400 steps of a million tokens, as the recipe says.
        tokens = stage_tokens(ROOT / recipe, settings.stages.gpus, 0)
        assert tokens == {Path(recipe).name: (400 * 256 * 4096, False)}
        assert yaml.safe_load((ROOT / recipe).read_text())["sequence_len"] == settings.write.sequence_len
