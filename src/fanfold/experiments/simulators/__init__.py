"""Studies of end-to-end estimators."""
