"""Tests that share what is made once for their file are run by one worker."""

from tests.scheduling import unit


def test_files_with_fixtures_of_their_own_are_kept_together() -> None:
    together = "tests/search/test_distributed.py"
    assert {unit(f"{together}::test_two_processes_search_as_one[{name}]") for name in ("score", "full")} == {together}
    alone = "tests/test_tools.py::test_files_from_strangers"
    assert unit(alone) == alone
