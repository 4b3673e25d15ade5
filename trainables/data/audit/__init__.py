"""What a task holds and what is odd in it, found without torch: `examine` gathers it by way of all `checks`."""
