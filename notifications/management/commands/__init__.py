"""The commands of this app: each module is one command, and delegates to the package that does the work."""
