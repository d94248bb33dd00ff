"""Models on held-out questions: in an evaluate job, and every few steps of training.

evaluate.py     sets are sampled and graded; read this first
results.py      every sample with its grade, and the numbers made of them; statistics.py: estimates and intervals
compare.py      a row for each model and set, and what the differences say; table.py: on the screen and in results.md
job.py          the evaluate job; output.py: what its rank 0 writes and says
predictions.py  predictions.jsonl; resume.py: going on from it; rescore.py: grading it anew
"""
