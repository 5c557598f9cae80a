"""Runs as jobs: launched, resumed, and swept over a grid of settings."""
