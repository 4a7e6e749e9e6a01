#!/usr/bin/env bash
# Set up the environment and run every check: ruff, mypy (strict), pytest. Further arguments go to pytest.
source "$(dirname "$0")/env.sh" test
ruff format --check .
ruff check .
mypy
pytest "$@"
