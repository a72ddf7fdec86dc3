"""Build docker/Dockerfile without Docker, on a base that stands in for Axolotl's, and try what it built.

    make image-without-docker

As root on Debian or Ubuntu, with `apt-get install buildah debootstrap`. docker/stand_in/Dockerfile is the base: Axolotl's
version, torch, uv and folders as its image has them, on Debian 13 and without CUDA's toolkit. On it docker/Dockerfile is
built as it is, but for flash-attn, which needs that toolkit; what is left out is printed. Then, as the user of the image:
its healthcheck, the recipes, the help, and two steps of each of stages 1 to 5 on the demo's random model. Python's
packages come from where `pip config list` says, Debian's from where apt has them. It takes some 15 minutes and 30 GB of
disk, gives both back at the end, and needs nothing but Python's own library.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
STAND_IN = ROOT / "docker" / "stand_in" / "Dockerfile"
IMAGE = "localhost/eeve-axolotl"

# What the base needs of Debian: Python and a compiler for it, as Axolotl's image has build-essential.
DEBIAN = "ca-certificates,git,g++,libgomp1,procps,python3,python3-dev"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# The demo's random model, its text, tokenizer and corpus, all made in the image, and the stages that need no adapter.
TRAINING = [
    ["python", "examples/demo/base_model.py", "outputs/demo/random"],
    ["python", "-c", "import sys; sys.path.insert(0, 'examples/demo'); import prepare; from pathlib import Path; "
     "(text := Path('outputs/demo/text')).mkdir(); prepare.write_text(text, prepare.KOREAN)"],
    ["axolotl", "eeve", "tokenizer", "examples/demo/tokenizer.yml"],
    ["axolotl", "eeve", "corpus", "examples/demo/corpus.yml"],
    ["axolotl", "train", "examples/demo/stages1to5.yml", "--base-model", "./outputs/demo/random", "--max-steps", "2",
     "--launcher", "python"],
]  # fmt: skip


def refusal() -> str | None:
    """Why this cannot run here, in a sentence; None if it can."""
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not found: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "debootstrap and the image's users need root: run this as root"
    return None


def base_image() -> tuple[str, str, str]:
    """The image that docker/Dockerfile starts from, its Axolotl, and its torch."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    default = dict(re.findall(r"(?m)^ARG (\w+)=(\S+)$", text))
    (name,) = re.findall(r"(?m)^FROM (\S+)$", text)
    for key, value in default.items():
        name = name.replace(f"${{{key}}}", value)
    return name, default["AXOLOTL"], default["VARIANT"].rpartition("-")[2]


def without_flash_attn(dockerfile: str) -> str:
    """The Dockerfile without the step that installs flash-attn, and without the two imports that ask for it."""
    lines = [line for line in dockerfile.splitlines(keepends=True) if '".[flash-attn]"' not in line]
    left = "".join(lines).replace("import flash_attn; ", "").replace("import flash_attn, ", "import ")
    if len(lines) != len(dockerfile.splitlines()) - 1 or "flash_attn" in left:
        raise SystemExit("docker/Dockerfile installs or imports flash-attn in another way than this knows")
    return left


@dataclass(frozen=True)
class Indexes:
    """Where Python's packages come from: uv's settings, and the folders of this machine that they name."""

    settings: str
    folders: list[Path]

    @classmethod
    def of_pip(cls) -> Indexes:
        """As `pip config list` says; uv is told to choose among several as pip does."""
        command = [sys.executable, "-m", "pip", "config", "list"]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found: dict[str, list[str]] = {}
        for line in printed.splitlines():
            key, _, value = line.partition("=")
            found.setdefault(key.rpartition(".")[2], []).extend(str(ast.literal_eval(value)).split())
        lines = ["system-certs = true", 'index-strategy = "unsafe-best-match"']
        if "index-url" in found:
            lines.append(f"index-url = {json.dumps(found['index-url'][-1])}")
        named = found.get("index-url", [])[-1:]
        for key in ("extra-index-url", "find-links"):
            if key in found:
                named += found[key]
                lines.append(f"{key} = {json.dumps(sorted(set(found[key])))}")
        # The pages of an index link to files, which may lie beside its folder: <folder>/simple and <folder>/files.
        places = {
            Path(urlsplit(each).path.removesuffix("/simple")) for each in named if each.startswith("file:")
        }
        places |= {Path(each) for each in found.get("find-links", []) if each.startswith("/")}
        return cls("\n".join(lines) + "\n", sorted(place for place in places if place.exists()))


def debian_mirror() -> list[str]:
    """Where this machine's apt has Debian from, if it does; debootstrap has a default."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    try:
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    except FileNotFoundError:
        return []
    return [each for each in printed.split() if "security" not in each][:1]


class Workshop:
    """A folder with everything in it: buildah's storage, apart from this machine's own, contexts, and a log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        for name in ("base", "temporary"):
            (directory / name).mkdir(exist_ok=True)

    def run(self, command: list[str], **keys) -> str:
        """What the command prints, which the log has too. It raises SystemExit with the last lines if it fails."""
        environment = {**os.environ, "TMPDIR": str(self.directory / "temporary")}
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            **keys,
        )
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{done.stdout}")
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-30:])
            raise SystemExit(f"{last}\nstatus {done.returncode}: {' '.join(command)[:300]}")
        return done.stdout

    def buildah(self, *arguments: str) -> str:
        """What buildah prints, with the storage of this folder."""
        storage = ["--root", str(self.directory / "storage"), "--runroot", str(self.directory / "running")]
        return self.run(["buildah", *storage, *arguments])

    def build(self, dockerfile: Path, context: Path, name: str, indexes: Indexes, *arguments: str) -> None:
        """Build an image. The settings of uv and the folders that they name are mounted, and not in the image."""
        settings = self.directory / "uv.toml"
        settings.write_text(indexes.settings, encoding="utf-8")
        mounts = [f"{settings}:/etc/uv/uv.toml:ro", *(f"{each}:{each}:ro" for each in indexes.folders)]
        if Path(CERTIFICATES).exists():
            mounts.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
        self.buildah(
            *("bud", "--isolation", "chroot", "--format", "docker", "--layers=false", "--pull-never"),
            *(f"--volume={mount}" for mount in mounts),
            *arguments,
            *("--file", str(dockerfile), "--tag", name, str(context)),
        )

    def has(self, name: str) -> bool:
        """Whether the storage has an image of this name."""
        return bool(self.buildah("images", "--quiet", "--filter", f"reference={name}").strip())

    def remove(self) -> None:
        """Everything, unless something is still mounted below it."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        below = f" {self.directory}/"
        for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
            if below in line:
                subprocess.run(["umount", line.split()[1]], check=False)
        if below in Path("/proc/self/mounts").read_text(encoding="utf-8"):
            raise SystemExit(f"something is still mounted below {self.directory}: it is left as it is")
        shutil.rmtree(self.directory)


def pack_debian(workshop: Workshop, context: Path) -> None:
    """Debian 13 as system.tar. One that is there, of a run that stopped later, is kept."""
    packed, system = context / "system.tar", context / "system"
    if packed.exists():
        return
    if system.exists():
        raise SystemExit(
            f"{system} was left by a run that was interrupted: see what is mounted in it, and remove it"
        )
    command = ["debootstrap", "--variant=minbase", f"--include={DEBIAN}", "trixie", str(system)]
    workshop.run([*command, *debian_mirror()])
    half = packed.with_suffix(".half")
    left_out = [f"--exclude=./{each}/*" for each in ("dev", "proc", "sys", "var/cache/apt/archives")]
    workshop.run(["tar", *left_out, "-cf", str(half), "-C", str(system), "."])
    half.replace(packed)
    workshop.run(["rm", "-r", "--one-file-system", str(system)])


def make_base(workshop: Workshop, indexes: Indexes) -> None:
    """The stand-in, under the name of Axolotl's image. One that is there is kept."""
    name, axolotl, torch = base_image()
    if workshop.has(name):
        return
    context = workshop.directory / "base"
    pack_debian(workshop, context)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
    workshop.run([*pip, "--target", str(context / "pip"), "uv"])
    shutil.copy2(context / "pip" / "bin" / "uv", context / "uv")
    arguments = (f"--build-arg=AXOLOTL={axolotl}", f"--build-arg=TORCH={torch}")
    workshop.build(STAND_IN, context, name, indexes, *arguments)


def build(workshop: Workshop, indexes: Indexes) -> None:
    """The image, of docker/Dockerfile without flash-attn."""
    given = DOCKERFILE.read_text(encoding="utf-8")
    used = without_flash_attn(given)
    lines = difflib.unified_diff(given.splitlines(), used.splitlines(), n=0, lineterm="")
    print("\n".join(line for line in lines if not line.startswith(("---", "+++", "@@"))), flush=True)
    dockerfile = workshop.directory / "Dockerfile"
    dockerfile.write_text(used, encoding="utf-8")
    workshop.build(dockerfile, ROOT, IMAGE, indexes)


class Trial:
    """A container of the image, used as docker/README.md tells: two folders mounted, the image's user and entry point."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.settings = json.loads(workshop.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        self.container = workshop.buildah("from", "--pull-never", IMAGE).split()[-1]
        self.folders: dict[str, Path] = {}
        for target in self.settings["Volumes"]:
            folder = Path(tempfile.mkdtemp(prefix=target.strip("/") + "-", dir=workshop.directory))
            folder.chmod(0o1777)
            self.folders[target] = folder
            # buildah would lay a folder of its own over ours.
            workshop.buildah("config", f"--volume={target}-", self.container)

    def run(self, *command: str) -> str:
        """What a command prints in the container, if it ends well."""
        folders = [f"--volume={folder}:{target}" for target, folder in self.folders.items()]
        arguments = ("--isolation", "chroot", *folders, "--env", "HF_HUB_OFFLINE=1")
        return self.workshop.buildah("run", *arguments, self.container, "--", *command)

    def user(self) -> None:
        """It is 1000, may not write what root installed, and owns no package."""
        if self.run("id", "-u").strip() != "1000":
            raise SystemExit("the image does not run as user 1000")
        self.run("bash", "-c", "! touch /opt/eeve-axolotl/here && ! touch /workspace/axolotl-venv/here")

    def healthcheck(self) -> None:
        """The command that the image itself has."""
        kind, *command = self.settings["Healthcheck"]["Test"]
        if kind != "CMD":
            raise SystemExit(f"the healthcheck is {kind}, which this does not know how to run")
        self.run(*command)

    def recipes(self) -> None:
        """Every recipe of this checkout is copied into /work."""
        self.run(*self.settings["Entrypoint"], "eeve", "recipes")
        here = {path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.yml")}
        copies = self.folders["/work"] / "examples"
        missing = sorted(str(path) for path in here if not (copies / path).is_file())
        if missing:
            raise SystemExit(f"`axolotl eeve recipes` did not bring {', '.join(missing)}")

    def help(self) -> None:
        """What the image does without arguments."""
        if "recipes" not in self.run(*self.settings["Entrypoint"], *self.settings["Cmd"]):
            raise SystemExit("the image without arguments does not print the commands")

    def training(self) -> None:
        """A model and its record are written, for the image's user."""
        for command in TRAINING:
            self.run(*command)
        stage5 = self.folders["/work"] / "outputs" / "demo" / "stage5"
        for name in ("model.safetensors", "tokenizer.json", "eeve_stage.json"):
            if (stage5 / name).stat().st_uid != 1000:
                raise SystemExit(f"{name} of stage 5 is not of user 1000")


def steps(workshop: Workshop) -> dict[str, Callable[[], None]]:
    """What is done, in this order, by the words of the table."""
    name = base_image()[0]
    indexes = Indexes.of_pip()
    trial: list[Trial] = []
    return {
        f"base in place of {name}": lambda: make_base(workshop, indexes),
        "docker/Dockerfile, without flash-attn": lambda: build(workshop, indexes),
        "a container": lambda: trial.append(Trial(workshop)),
        "user 1000, who cannot write what is installed": lambda: trial[0].user(),
        "HEALTHCHECK": lambda: trial[0].healthcheck(),
        "axolotl eeve recipes": lambda: trial[0].recipes(),
        "axolotl eeve --help": lambda: trial[0].help(),
        "axolotl train, stages 1 to 5, two steps each": lambda: trial[0].training(),
    }


def main() -> None:
    """Do each step, print its line, and leave nothing behind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kept = "build in this folder and keep it; a base in it is used again"
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help=kept)
    arguments = parser.parse_args()
    if (sentence := refusal()) is not None:
        sys.exit(sentence)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    workshop = Workshop((arguments.keep or Path(tempfile.mkdtemp(prefix="eeve-image-"))).resolve())
    print(f"in {workshop.directory}; what the commands print is in its log", flush=True)
    try:
        for words, do in steps(workshop).items():
            begun = time.monotonic()
            try:
                do()
            except SystemExit as error:
                sys.exit(f"{words}: failed\n{error}")
            print(f"{words}: ok, {time.monotonic() - begun:.0f} s", flush=True)
    finally:
        if arguments.keep is None:
            workshop.remove()


if __name__ == "__main__":
    main()
