#!/usr/bin/env bash
# mypy (strict) on the packages and on the scripts, which import their neighbours: names occur in several folders.
set -euo pipefail
cd "$(dirname "$0")/.."
mypy
for scripts in tools tools/bench tools/results; do MYPYPATH=$scripts mypy "$scripts"/*.py; done
