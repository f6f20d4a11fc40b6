"""Run directories: what a training leaves behind, read without running anything."""
