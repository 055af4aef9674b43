"""A run's folder: how it is written, whole at any moment, and read back with distrust."""
