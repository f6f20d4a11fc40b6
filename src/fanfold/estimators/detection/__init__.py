"""Detectors of symbols."""
