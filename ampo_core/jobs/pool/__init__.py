"""The `pool` job: job.py is the build, read it first; sources answer, shards keep, choose decides, output writes."""
