"""One complete and one unfinished report, written once."""

import pytest

from eeve_axolotl import report
from tests.report.pipeline import make


@pytest.fixture(scope="session")
def complete(tmp_path_factory):
    """The output directory of a pipeline that is done, with its report."""
    output = make(tmp_path_factory.mktemp("complete"))
    report.write(output)
    return output


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory):
    """The same after stage 4, with stages 2 and 4 not evaluated."""
    output = make(tmp_path_factory.mktemp("unfinished"), done=4, evaluated=(-1, 0, 1, 3))
    report.write(output)
    return output
