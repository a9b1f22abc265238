"""Benches: `python -m bench [NAME …] [--json]`. Our figure, its limit and the official package, side by side."""
