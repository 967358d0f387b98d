"""``python -m controlplane``."""

import sys

from controlplane.main import main

if __name__ == "__main__":
    sys.exit(main())
