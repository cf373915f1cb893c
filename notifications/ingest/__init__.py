"""How requests come in: payload, validation, insert, triggers."""
