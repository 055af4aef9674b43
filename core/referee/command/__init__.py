"""The command line. It stands on everything else, and nothing stands on it."""
