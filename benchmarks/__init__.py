"""What `make bench` runs: a benchmark a file, found by its file name."""
