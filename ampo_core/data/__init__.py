"""Questions: files to checked rows (`rows`, `contract`), rows to questions (`questions`), their order and seeds."""
