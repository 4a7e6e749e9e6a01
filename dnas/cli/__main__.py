"""`python -m dnas.cli`, for a checkout that is not installed; else `dnas` (with torchrun: `torchrun --no-python dnas`).

`-m` puts the working folder first among the places of modules, where a file called retrain.py would stand for ours.
"""

import sys
from pathlib import Path

import dnas

if Path(sys.path[0]).resolve() != Path(dnas.__file__).resolve().parent.parent:
    del sys.path[0]

from dnas.cli import main

sys.exit(main())
