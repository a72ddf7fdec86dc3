"""What the documents name exists."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_that_frozen_rows_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "frozen_rows.md").read_text(encoding="utf-8")))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", source, re.M))
