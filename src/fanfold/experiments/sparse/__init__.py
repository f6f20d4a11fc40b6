"""Studies of sparse recovery."""
