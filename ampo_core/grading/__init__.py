"""Verdicts on responses: rewards run in processes that may be killed. Read `grader.py` first.

grader.py     requests -> grades, each once; ground truths -> whether anything could be verified against them
  pool.py     the processes: a deadline for each task, a dead one costs one task, failures may be tried again
    worker.py   what runs in one of them; it never imports torch
penalties.py  what is taken from a verified reward: repetition, length
"""
