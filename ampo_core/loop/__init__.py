"""The hops of a training step, each beside what builds it. `ampo_core/train.py` calls them: read that first.

    sampling.py     questions, rollouts, grades; ahead.py samples the next batch meanwhile
    guidance.py     trigger, select, replace; teachers.py has the candidates, scoring.py what comprehension asks
    credit.py       advantages, and the groups that are trained on; groups.py is what a group is after guidance
    sequences.py    what the objective sees of a slot, and the mini-batches
    old_policy.py   π_old, what is measured of it; probe.py measures where a batch cannot tell
    objective.py    weights and loss of a mini-batch
    metrics.py      the numbers of a step; evaluator.py those on held-out sets

`assemble.py` builds all that (`parts.py`), in an order in which bad input is refused before a model is loaded.
"""
