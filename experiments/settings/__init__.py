"""What can be set, how it is composed, and when two runs are the same."""
