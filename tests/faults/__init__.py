"""Faults, hostile input and carelessness: nothing of a user's is harmed, leaked or silently out of date."""
