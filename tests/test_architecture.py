"""ARCHITECTURE.md's table of rooms is true: who knows Axolotl, and that arrows go down only. Sources are read, not run."""

from __future__ import annotations

import ast
import graphlib
import re
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.imports import PACKAGE, imports, modules, tree

MODULE_LINES = 400
FUNCTION_LINES = 60


class Room(NamedTuple):
    layer: int
    knows: str  # yes, config keys, or no


def table() -> dict[str, Room]:
    """The rooms of ARCHITECTURE.md, each `name/` or `name.py` in the row's second cell."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("\n## The rooms\n")[2].partition("\n## ")[0]
    rooms: dict[str, Room] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            for name in re.findall(r"`([\w.]+/?)`", cells[1]):
                assert name not in rooms, f"{name} has two rows"
                rooms[name] = Room(int(cells[0]), cells[3])
    return rooms


ROOMS = table()


def room(module: str) -> str:
    """The room that a module is in: `rows/` for `eeve_axolotl.rows.masks`, `stages.py` for `eeve_axolotl.stages`."""
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__.py"
    return f"{parts[1]}/" if (ROOT / PACKAGE / parts[1]).is_dir() else f"{parts[1]}.py"


# The package's own imports, module by module.
ARROWS = {
    module: {each.name for each in imports() if each.by == module and each.name in modules()}
    for module in modules()
}


def test_the_table_has_every_room_and_no_other():
    assert set(ROOMS) == {room(module) for module in modules()}
    assert {each.knows for each in ROOMS.values()} == {"yes", "config keys", "no"}


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_arrows_go_down(name):
    """A room imports from lower layers only, inside functions too: rooms of one layer do not know each other."""
    layer = ROOMS[name].layer
    assert not {
        f"{module} imports {other}"
        for module in modules()
        if room(module) == name
        for other in ARROWS[module]
        if room(other) != name and ROOMS[room(other)].layer >= layer
    }


def test_no_module_imports_itself_by_way_of_others():
    """Inside functions neither: what would need it belongs in a third module that both import."""
    try:
        graphlib.TopologicalSorter(ARROWS).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_only_rooms_that_know_axolotl_import_it():
    assert not {
        each.by for each in imports() if each.name == "axolotl" and ROOMS[room(each.by)].knows != "yes"
    }


def test_rooms_that_do_not_know_axolotl_have_no_config_of_it():
    """Its config is called `cfg` everywhere, as Axolotl calls it."""
    assert not {
        module
        for module in modules()
        if ROOMS[room(module)].knows == "no"
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.arg) and node.arg == "cfg")
        or (
            isinstance(node, ast.Name | ast.Attribute)
            and getattr(node, "id", getattr(node, "attr", "")) == "cfg"
        )
    }


def test_rooms_that_do_not_know_axolotl_do_not_reach_it_through_others():
    knowing = {module for module in modules() if ROOMS[room(module)].knows == "yes"}

    def reached(module: str, seen: set[str]) -> set[str]:
        for other in ARROWS[module] - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    assert not {
        f"{module} reaches {', '.join(sorted(reached(module, set()) & knowing))}"
        for module in modules()
        if ROOMS[room(module)].knows == "no" and reached(module, set()) & knowing
    }


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_and_its_functions_can_be_read_at_once(module):
    """At most 400 lines, and 60 a function: a longer one says why in it, `# long: reason`."""
    lines = modules()[module].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MODULE_LINES
    long = {
        f"{node.name}: {length} lines"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1) > FUNCTION_LINES
        and not any(re.search(r"# long: \w", line) for line in lines[node.lineno - 1 : node.end_lineno])
    }
    assert not long


def test_every_path_of_the_slow_tests_exists():
    """A file that was moved would else be fast, and `make test-fast` no longer."""
    from tests.conftest import SLOW

    assert not {name for name in SLOW if not list((ROOT / "tests").glob(name))}
