"""New plugins: `ampo-run --new-plugin KIND NAME` fills the templates in `templates/` in. Start with `write.py`."""
