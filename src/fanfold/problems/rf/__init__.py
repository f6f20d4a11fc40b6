"""RF imaging by textbook arrays and by the user's own."""
