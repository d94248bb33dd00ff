"""What `ampo-run --new-plugin KIND NAME` writes: for each KIND a module `ampo_my_KIND.py`, its test, and the lines of a
config that use it. Real plugins, which are checked and run as they stand; `my_KIND` and `MyKind` become the name."""
