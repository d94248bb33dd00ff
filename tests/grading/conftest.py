"""The test folder goes on sys.path, so that grading workers find the rewards that the tests define."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
