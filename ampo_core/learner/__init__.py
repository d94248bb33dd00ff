"""DeepSpeed around the policy. Read `Learner.update` in `learner.py` first, then what it goes through in this order:

    packing.py     micro-batches under a token budget, each one row without padding
    policy.py      the Hugging Face model, forward over such a row
    attention.py   in which nothing passes between its sequences
    logprobs.py    log-probs and entropies without all logits
    dropout.py     no dropout of the checkpoint's own
    schedule.py    the learning rate of a place in the run

`deepspeed_engine.py` configures DeepSpeed, `checkpoint.py` keeps all that a run needs to go on.
"""
