"""The hops of a training step, as `ampo_core/train.py` calls them: read that first.

`assemble.py` builds what they use (`parts.py`), in an order in which bad input is refused before a model is loaded.
"""
