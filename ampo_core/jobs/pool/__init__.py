"""The `pool` job: teachers answer questions, and what verifies becomes a pool. Read `job.py` first.

sources.py    who answers: the rollout, an endpoint (endpoint.py), the rows themselves; asking.py: in which words
shards.py     answers and verdicts in files that are never changed: a build goes on from them
choose.py     which answer of a teacher stays, and which questions (`prepare` chooses alike)
output.py     the pool's files; summary.py: what became of every answer and question
"""
