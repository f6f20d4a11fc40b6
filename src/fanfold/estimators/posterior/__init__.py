"""Estimators of posteriors: from draws alone, or from a known likelihood."""
