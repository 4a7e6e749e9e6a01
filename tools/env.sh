# Sourced by the other scripts: an environment in .venv, made once and refreshed when setup.cfg changes.
# Set `extras` before (such as extras=test) to install optional dependencies too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
extras=${extras:-}
stamp=.venv/.installed${extras:+-$extras}
wanted=$(cat setup.cfg setup.py pyproject.toml | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    echo "installing into .venv (once; torch is large)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    echo "$wanted" >"$stamp"
fi
PATH="$PWD/.venv/bin:$PATH"
