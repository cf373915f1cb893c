"""The template tag that shows the overview on the app's first page in the admin.

The package holds no query and no text: it calls `admin.overview`. No package imports it.
"""
