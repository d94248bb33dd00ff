"""The engine. Read `train.py` first: one training step from top to bottom.

    cli > scaffold > testing > jobs > train > loop > evaluation > report > learner > distributed > run, grading > data
    > config

These are its rooms, and a room uses only what stands to the right of it; `lint-imports` keeps that. Of components they
know what `ampo_registry` shows and no more.
"""
