"""The statistics behind every reported number: pure functions of numpy arrays, each with its definition and source.

No function here knows of a sweep, a table or a figure. Chance comes from a `numpy.random.Generator` that the caller
gives, so that equal questions get equal answers. Higher scores are better throughout: of an error or a loss, the caller
gives the negative. "Scores by task" are one array of `(num_seeds,)` scores a task, in the order of the tasks; tasks
may differ in their number of seeds, and a `(num_tasks, num_seeds)` array is such a sequence.
"""
