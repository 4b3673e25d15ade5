"""What `make bench` runs: a benchmark a file, found by its file name."""


class NotMeasuredError(Exception):
    """What a benchmark needs is not at hand. The message says what would measure it."""
