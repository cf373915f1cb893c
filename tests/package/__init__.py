"""The app in other people's projects: installed from its wheel, without this repository."""
