"""The engine: one readable loop (`ampo_core.train`) and what it needs."""
