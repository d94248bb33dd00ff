"""DeepSpeed around the policy. Read `Learner.update` in `learner.py` first, then what it goes through in this order:

    packing.py     micro-batches under a token budget, each one row without padding
    policy.py      the Hugging Face model, forward over such a row
    attention.py   in which nothing passes between its sequences
    logprobs.py    log-probs and entropies without all logits
    schedule.py    the learning rate of the optimizer step

`deepspeed_engine.py` configures DeepSpeed, `checkpoint.py` keeps all that a run needs to go on.
"""
