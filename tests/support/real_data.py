"""The folder of real data; tests that need it are skipped without it.

ACTIONBENCH_TEST_DATA names it: data/ (jhmdb/, clips/, annotations/, weights/), golden/, published/.
"""

import os
from pathlib import Path

TEST_DATA = Path(os.environ.get("ACTIONBENCH_TEST_DATA") or "ACTIONBENCH_TEST_DATA-is-not-set").absolute()
