"""python -m tag2mask."""

import sys

from tag2mask.cli import main

sys.exit(main())
