"""``python -m operators``."""

import sys

from operators.main import main

if __name__ == "__main__":
    sys.exit(main())
