"""Runs as jobs: launched, resumed, swept."""
