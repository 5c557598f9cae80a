"""What is done with a model: runners, probes, sinks, pictures."""
