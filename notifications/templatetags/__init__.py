"""Template tags of the admin's start page for this app."""
