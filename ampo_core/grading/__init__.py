"""Verdicts on responses: rewards run in processes that may be killed. Read `grader.py` first.

grader.py     requests -> grades, each once; ground truths -> whether anything could be verified against them
  pool.py     the processes: a deadline in CPU time for each task, a dead one costs one task, a second try alone
    worker.py   what runs in one of them; it never imports torch
penalties.py  what is taken from a verified reward: repetition, length
"""
