"""The folder of real data that some tests read; they are skipped where it isn't given.

ACTIONBENCH_TEST_DATA names it: data/ (jhmdb/, clips/, annotations/, weights/), golden/, published/.
"""

import os
from pathlib import Path

TEST_DATA = Path(os.environ.get("ACTIONBENCH_TEST_DATA") or "ACTIONBENCH_TEST_DATA-is-not-set").absolute()
