"""What one GPU can tell of the engine in a few minutes: `python -m benchmarks gpu --out DIR`.

A part a file, in the order of `command.PARTS`; each has one function `measure(run)`, which adds its points to the
record as it goes and asks its deadline before whatever takes time. Needs no Ray, MLflow or `datasets`, and no network.
"""
