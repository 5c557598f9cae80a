"""Recorded runs, read and compared. Draws nothing."""
