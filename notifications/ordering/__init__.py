"""The order of records with an order key: which one goes next, and which ones wait."""
