"""`python -m backupd`."""

import sys

from backupd.cli.main import main

sys.exit(main())
