"""`python -m virtfs`: the same as `virtfs`."""

import sys

from virtfs.cli.start import virtfs

sys.exit(virtfs())
