"""Others that deliver, each in its best setting. Nothing is imported here: it would count as their memory."""
