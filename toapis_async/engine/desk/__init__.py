"""One process's journal and limits, for engines in others."""
