"""From files and the hub to checked tasks: what the task families share."""
