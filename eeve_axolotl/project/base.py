"""The base model of a project: a directory, or a name on the hub, and its config.json."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.planner.shapes import Shape, read_config, shape_of
from eeve_axolotl.records import CONFIG

LARGE = 5e9  # parameters: above it the paper's rate for SOLAR, below it that for Phi-2


@dataclass(frozen=True)
class Base:
    """A base model: how the project's YAMLs name it, where its config.json is, and what follows from that."""

    name: str
    known_by: str
    """For the planner: a directory with config.json, or a name that it carries the shape of."""
    config: dict[str, Any]
    shape: Shape

    @property
    def parameters(self) -> int:
        """All of them."""
        return (
            self.shape.other
            + self.shape.linear_parameters
            + self.shape.embedding_parameters(self.shape.rows, self.tied)
        )

    @property
    def tied(self) -> bool:
        """Whether its two embedding matrices are one."""
        return self.shape.tied

    @property
    def learning_rate(self) -> str:
        """The paper's, for a model of this size."""
        return "4e-5" if self.parameters > LARGE else "2e-4"

    @property
    def longest(self) -> int | None:
        """Positions that it was trained for, where the config says so."""
        longest = self.config.get("max_position_embeddings")
        return longest if isinstance(longest, int) else None


def find(given: str, project: Path) -> Base:
    """The base that was asked for. Raises EEVEError for what is no model, or cannot be reached."""
    path = Path(given).expanduser()
    if path.exists() or given.startswith((".", "/", "~")) or given.count("/") > 1:
        if not (path / CONFIG).is_file():
            raise EEVEError(
                f"--base {given}: there is no model ({path / CONFIG} is missing); give its directory, or its name on the hub"
            )
        config = read_config(str(path))
        return Base(named_in(path, project), str(path), config, shape_of(config))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        raise EEVEError(
            f"--base {given}: there is no such directory, and a name on the hub is OWNER/NAME; give one of both"
        )
    known_by = given if given in CONFIGS else str(_from_the_hub(given))
    config = read_config(known_by)
    return Base(given, known_by, config, shape_of(config))


def named_in(path: Path, project: Path) -> str:
    """How a YAML of the project names `path`: from the project's directory if it is in it, else by its whole path."""
    whole, directory = path.absolute(), project.absolute()
    return f"./{whole.relative_to(directory)}" if whole.is_relative_to(directory) else str(whole)


def _from_the_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, CONFIG)).parent
    except GatedRepoError:
        raise EEVEError(
            f"--base {name}: the hub asks for consent; give it on the model's page, then `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise EEVEError(
            f"--base {name}: the hub has no such model, or none that you may read; correct the name"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = (
            "HF_HUB_OFFLINE is set, and it is not in the cache: unset it"
            if HF_HUB_OFFLINE
            else f"the hub is not reached ({' '.join(str(error).split())[:150]}): try again"
        )
        raise EEVEError(f"--base {name}: {why}, or give a directory") from None
