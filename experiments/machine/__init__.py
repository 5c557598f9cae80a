"""The machine: console, files, signals, devices, memory. Knows nothing of runs."""
