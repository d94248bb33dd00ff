"""`python -m ampo_core.cli.member PARENT CONFIG …`: `ampo-run` for a member of a suite or pipeline, which ends with the
process PARENT that started it."""

from __future__ import annotations

import sys

from ampo_core.run.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv.pop(1)))
    from ampo_core.cli.main import main

    sys.exit(main())
