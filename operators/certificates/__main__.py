"""``python -m operators.certificates``."""

import sys

from operators.certificates.command import main

sys.exit(main())
