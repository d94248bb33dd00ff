"""What a run tells, while it runs and afterwards: lines of metrics, model cards, budgets, and its report.

    reporting.py   `Reporter`, through which train and sft tell it on every rank; output.py is rank 0's part
    watch.py       says of a run that learns nothing that it does; signs.py has what shows it, and all thresholds
    model_card.py  the card of each checkpoint; card_facts.py reads the run for it, model_card.jinja has the words
    marks.py       the changes that it went on with, if any, in words
    budget.py      what a run spent; lineage.py: the runs that it started from; spent.py: both together

The report of a run, or of several, is one HTML file that opens offline:

    sources.py     which runs a folder holds: a run, a pipeline, a suite with its seeds
    samples.py     what samples.jsonl and predictions.jsonl show, a few rows of it
    curves.py      metrics.jsonl as series; scores.py: results.json as rows with estimates
    tables.py      the one table: as Markdown, as HTML (markdown.py, html.py) and on the screen
    figures.py     a metric as a figure: plain data for the plotting library; pictures.py: the same as PNG
    facts.py       the head of a run's page
    training.py    the sections of a train or sft run
    evaluation.py  what evaluate jobs found: table of models and sets, accuracy by set, pass@k
    summary.py     the numbers of a prepare or pool job
    comparing.py   the sections of several runs side by side
    page.py        sections and figures as one page; library.py is the plotting library in it
    build.py       `write_report`, and `refresh_report`, which never stops a run

assets/ holds the page's own style and script. No file of the report imports torch.
"""
