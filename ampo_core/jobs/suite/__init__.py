"""The `suite` job: configs × seeds, evaluated alike and compared in tables.

job.py         runs what is not finished; read this first
plan.py        what there is to run, and what waits for what
tables.py      what was found at each seed, put together; statistics.py: means and intervals over seeds
render.py      the tables on the screen, as Markdown, HTML and pictures
"""
