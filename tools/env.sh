# Sourced by the other scripts: an environment in .venv, made once and refreshed when setup.cfg changes.
# Set `extras` before (such as extras=test) to install optional dependencies too.
# PYTHON=python3.12: another Python, in .venv-3.12. LOWEST=1: the oldest releases that setup.cfg allows, in .venv-...-lowest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
venv=.venv${PYTHON:+-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}${LOWEST:+-lowest}
extras=${extras:-}
stamp=$venv/.installed${extras:+-$extras}
wanted=$(cat setup.cfg setup.py pyproject.toml | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    echo "installing into $venv (once; torch is large)"
    pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    if [ -n "${LOWEST:-}" ]; then
        "${pip[@]}" uv
        pip=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --resolution lowest-direct)
    fi
    "${pip[@]}" -e ".${extras:+[$extras]}"
    echo "$wanted" >"$stamp"
fi
PATH="$PWD/$venv/bin:$PATH"
