#!/usr/bin/env bash
# Set up the environment and run the checks: ruff, mypy (strict), pytest with as many workers as there are cores.
# --quick: pytest without what is marked slow; --all: with what is marked long too. Further arguments go to pytest.
# PYTHON=python3.12: with another Python; LOWEST=1: with the oldest releases allowed, pytest only (tools/env.sh).
extras=test,docs
[ -z "${LOWEST:-}" ] || extras=test
source "$(dirname "$0")/env.sh"
which=()
case "${1:-}" in
    --quick) which=(-m "not slow and not long"); shift ;;
    --all) which=(-m ""); shift ;;
esac
if [ -z "${LOWEST:-}" ]; then
    ruff format --check .
    ruff check .
    if python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then bash tools/types.sh
    else echo "types are not checked: they are those of numpy from 2.3 on, which needs Python 3.11"; fi
fi
pytest -n auto --maxprocesses 8 ${which[@]+"${which[@]}"} "$@"
