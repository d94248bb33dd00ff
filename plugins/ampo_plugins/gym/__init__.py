"""Reasoning Gym's data sets (the package `reasoning_gym`): how they are made, kept in files, and asked for scores.

The task `reasoning_gym` makes the files, the reward `reasoning_gym` judges by them. `entries.py` is the form in which
an entry stands in a file, `answers.py` keeps answers from scorers that would run them as a program.
"""
