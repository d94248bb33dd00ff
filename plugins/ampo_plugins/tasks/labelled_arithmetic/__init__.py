"""`labelled_arithmetic`: apply labelled operations in label order, keep the last two digits.

`problems.py` holds the questions, `teachers.py` the four scripted teachers, `warmup.py` the conversations that the
student is warmed up on, `model.py` its tokenizer and start weights, `spec.py` the task with its options.
"""

from ampo_plugins.tasks.labelled_arithmetic.spec import LabelledArithmetic

__all__ = ["LabelledArithmetic"]
