"""Ray's only room: planned trials in, records out."""
