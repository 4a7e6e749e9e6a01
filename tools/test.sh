#!/usr/bin/env bash
# Set up the environment and run the checks: ruff, mypy (strict), pytest with as many workers as there are cores.
# --quick: pytest without what is marked slow; --all: with what is marked long too. Further arguments go to pytest.
extras=test,docs
source "$(dirname "$0")/env.sh"
which=()
case "${1:-}" in
    --quick) which=(-m "not slow and not long"); shift ;;
    --all) which=(-m ""); shift ;;
esac
ruff format --check .
ruff check .
mypy
pytest -n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder "${which[@]}" "$@"
