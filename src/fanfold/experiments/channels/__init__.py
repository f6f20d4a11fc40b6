"""Studies of channel estimation and links."""
