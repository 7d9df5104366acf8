"""`python -m vdit_core.cli`, the same as `vdit`."""

import sys

from . import main

sys.exit(main())
