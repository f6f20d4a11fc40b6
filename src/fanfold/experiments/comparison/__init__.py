"""The study that measures the text's comparison table, cell by cell."""
