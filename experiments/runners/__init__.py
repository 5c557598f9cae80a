"""The runners, one a file: `run(settings, recorder)`."""
