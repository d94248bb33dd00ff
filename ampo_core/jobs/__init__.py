"""What `job:` may name. Read `table.py` first: which module runs which, and what becomes of a folder that is there.

`sft.py`, `prepare.py` and `pool/` are jobs of their own; `pipeline.py` and `suite/` run others inside their folder,
with `members.py`. Train stands in `ampo_core/train.py`, evaluate in `ampo_core/evaluation/job.py`.
"""
