"""From a YAML file to a checked job. Read `load.py` first; nothing here imports torch.

    a tree        yaml_source, nodes, layers: values that know their file and line, merged
    a job         tree, *_job, component, schema: its block, with components resolved; explain: what is wrong and where
    its findings  *_job, rules: each job beside the rules between its keys, what it needs and what it leaves behind
    inner ones    inner, references: the configs that pipelines and suites name, and ${stages.NAME.out}
    this machine  ready, machines, models: files, packages and GPUs that are missing here

A config is refused with all that is wrong with it at once; what is only missing here keeps it from starting.
"""
