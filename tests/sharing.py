"""How the tests are shared out to processes: what stands on one costly thing stays together, and the longest begin."""

import os
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER: Final = frozenset(
    {
        "tests/test_plans.py",
        "tests/cli/test_up.py",
        "tests/clients/test_javascript_client.py",
        "tests/clients/test_python_client.py",
        "tests/faults/test_deliver.py",
        "tests/faults/test_matrix.py",
    }
)
"""Files whose tests share an installation, or a past, that takes seconds to make: made once, in one process."""
LONG: Final = (
    "tests/faults/test_storm.py",
    "tests/faults/test_state_machine.py",
    "tests/test_openapi.py::test_no_answer_is_undocumented",
    "tests/cli/",
    "tests/incidents/test_page.py",
    "tests/test_postgres.py",
    "tests/test_project.py",
)
"""What takes seconds a test. Begun last, one of them would keep a single process busy while the others are done."""


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """A process gets a file of TOGETHER as a whole, and of the others a test at a time; the files come first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    """xdist's own groups would need a mark on each test, and it can't read those of this pytest."""
    return Sharing(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """With `-n auto` two for each core: half of its time a test waits, for processes, clocks and Postgres."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; otherwise the order stays as random as it is."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
