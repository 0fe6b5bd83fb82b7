"""Limits, and the ends of tasks, shared by the processes of one account."""
