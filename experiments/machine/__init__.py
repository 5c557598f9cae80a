"""What the machine gives: console, files, signals, devices, memory. Knows nothing of runs."""
