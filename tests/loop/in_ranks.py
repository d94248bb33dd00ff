"""Run by torch's launcher on every rank: `ampo-run` for one config after the other, in one start of the ranks."""

import sys

from ampo_core.cli.main import main

if __name__ == "__main__":
    sys.exit(max(main([config]) for config in sys.argv[1:]))
