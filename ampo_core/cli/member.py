"""`python -m ampo_core.cli.member CONFIG …`: `ampo-run` for a member of a suite or pipeline, which ends with it."""

from __future__ import annotations

import sys

from ampo_core.run.interrupt import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    from ampo_core.cli.main import main

    sys.exit(main())
