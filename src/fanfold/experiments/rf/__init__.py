"""Studies of RF imaging."""
