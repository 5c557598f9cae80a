"""The pictures of a run: `python -m experiments.plots DIR`, see experiments.report.run_pictures."""

import sys

from experiments.report.run_pictures import main

if __name__ == "__main__":
    sys.exit(main())
