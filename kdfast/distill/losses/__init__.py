"""Losses between student and teacher, one module per kind; `kdfast.all` exports the `__all__` of each."""
