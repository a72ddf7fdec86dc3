"""What the tests of faults start as processes of their own imports these tests' helpers from here."""

import pytest

from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _helpers_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
