"""Tools for development and tests. The product never imports this package."""
