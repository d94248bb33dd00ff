"""The `suite` job: job.py runs what plan.py lists, processes.py side by side; tables.py puts results together."""
