"""`python -m dnas.cli`, as torchrun calls it."""

import sys

from dnas.cli import main

sys.exit(main())
