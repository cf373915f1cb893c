"""A soak under a seeded schedule of faults, counted at the receiver: ``make chaos``."""
