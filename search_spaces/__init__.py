"""Declared sweeps: one constant SWEEP a module, nothing else. `adaptune run NAME` takes the name of a module here."""
