"""What outlives the process: every submission, from before its POST to its files."""
