"""`ampo-run CONFIG --sample N`: N questions as the model reads them, what it answers, and what the job makes of it.

job.py        which jobs can show it, and where it goes
train.py      the hops of a train job's first step up to the intervention, with the run's own functions
evaluate.py   the same of held-out questions
document.py   the texts and tables, on the screen and as Markdown
"""
