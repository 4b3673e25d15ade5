"""The `adaptune` command: the only room that prints or exits."""

from orchestrator.cli.app import main

__all__ = ["main"]
