"""Losses between student and teacher, one module per kind or per loss; `kdfast.all` exports the `__all__` of each."""
