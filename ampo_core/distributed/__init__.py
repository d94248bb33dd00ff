"""Several processes as one run. What a rank does with others is `ranks.py`; read this first.

launch.py ── starters.py ──> ranks of `ampo_core.cli.rank`, which `join_ranks` (ranks.py)
    │                             │          and fail as one (together.py)
supervise.py <── outcome.py <─────┘ how each of them ended, for the process that started them
"""
