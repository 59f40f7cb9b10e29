"""`python -m virtfs`: the same as `virtfs`."""

import sys

from virtfs.cli.main import main

sys.exit(main())
