"""`ampo-run`: `main.py` takes the arguments and says how it ended; `rank.py` is one rank of a run with several.

Neither imports torch: `--help`, `--check` and `--plugins` (`listing.py`) answer at once.
"""
