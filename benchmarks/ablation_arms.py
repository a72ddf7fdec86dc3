"""The arms of benchmarks/ablation.py: which stages each trains, from which start, on which text, at which rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eeve_axolotl.stages import STAGES, Layers, Rows, Stage

FULL = Stage("full", Rows.ALL, Rows.ALL, Layers.FULL)
ENGLISH = 1 / 6  # of the text's bytes, where an arm says nothing else


@dataclass(frozen=True)
class Arm:
    """One way to extend a base. `family` is the arm on which its learning rate was chosen."""

    name: str
    stages: tuple[Stage, ...]
    family: str
    extended: bool = True  # False: the base's own tokenizer
    output: str = "first_character"  # the rule of the new output rows
    rows_rate: float = 1.0  # the learning rate of stages without layers, as a multiple of the others'
    english: float = ENGLISH
    new_text: bool = True  # False: each stage begins at the text's begin again
    equal_flops: bool = False  # True: as many steps as give the FLOPs of `no extension`
    by_command: bool = False  # True: through `axolotl eeve run`


def stages(*numbers: int) -> tuple[Stage, ...]:
    return tuple(STAGES[number] for number in numbers)


def masks_off(stage: Stage) -> Stage:
    """The stage with all rows where it trains new ones."""

    def all_rows(rows: Rows) -> Rows:
        return Rows.ALL if rows is Rows.NEW else rows

    return replace(
        stage,
        name=f"{stage.name}, masks off",
        input_embeddings=all_rows(stage.input_embeddings),
        output_embeddings=all_rows(stage.output_embeddings),
    )


def all_arms() -> dict[str, Arm]:
    """Every arm by name, those first on which a recommendation rests."""
    seven = Arm("seven", stages(1, 2, 3, 4, 5, 6, 7), "seven")
    short = Arm("3 then 6", stages(3, 6), "3 then 6")
    alone = Arm("6 alone", stages(6), "6 alone")
    full = Arm("full", (FULL,), "full")
    control = Arm("no extension", stages(6), "no extension", extended=False)
    arms = [
        control,
        seven,
        alone,
        short,
        full,
        replace(seven, name="masks off", stages=tuple(masks_off(each) for each in seven.stages)),
        Arm("full after 3", (STAGES[3], FULL), "full"),
        Arm("3, 4, 6, 7", stages(3, 4, 6, 7), "3 then 6"),
        Arm("no extension, full", (FULL,), "full", extended=False),
        Arm("6, 7", stages(6, 7), "6 alone"),
    ]
    for times in (4, 16):
        arms += [
            replace(each, name=f"{each.name}, rows x{times}", rows_rate=times) for each in (seven, short)
        ]
    arms += [replace(each, name=f"equal FLOPs: {each.name}", equal_flops=True) for each in arms[1:5]]
    for left_out in (1, 2, 3, 4, 5, 7):
        rest = tuple(each for each in seven.stages if each.name != str(left_out))
        arms.append(replace(seven, name=f"seven without {left_out}", stages=rest))
    for rule in ("mean", "first_subword", "share", "fitted"):
        arms += [replace(each, name=f"{each.name}, {rule}", output=rule) for each in (seven, short)]
    arms.append(replace(alone, name="6 alone, fitted", output="fitted"))
    for share, words in ((0.0, "no English"), (1 / 3, "a third English")):
        arms += [replace(each, name=f"{each.name}, {words}", english=share) for each in (seven, alone)]
    arms.append(replace(seven, name="seven, one text", new_text=False))
    arms += [replace(each, name=f"{each.name}, by command", by_command=True) for each in (seven, alone)]
    return {each.name: each for each in arms}


FAMILIES = ("no extension", "seven", "6 alone", "3 then 6", "full")
RATES = {"small": (6e-3, 2e-3, 7e-4, 2.3e-4), "real": (1e-3, 3e-4)}
"""Tried from the highest on, until one is worse than the one before."""
