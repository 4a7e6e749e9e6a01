#!/usr/bin/env bash
# Set up the environment and run every check: ruff, mypy (strict), pytest. Further arguments go to pytest.
extras=test
source "$(dirname "$0")/env.sh"
ruff format --check .
ruff check .
mypy
pytest "$@"
