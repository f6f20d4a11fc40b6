"""Studies of bounds and of uncertainty."""
