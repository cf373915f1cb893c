"""Periodic work beside delivery: deleting old rows and running due jobs."""
