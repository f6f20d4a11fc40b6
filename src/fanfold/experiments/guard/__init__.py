"""Studies of guards: what is seen, how soon, and how seldom in vain."""
