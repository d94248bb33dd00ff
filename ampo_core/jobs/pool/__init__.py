"""The `pool` job: job.py is the build, read it first; asking words the questions, sources answer, shards keep, choose
decides, output writes."""
