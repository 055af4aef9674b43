"""Everything that makes the pocket zoo's weights, from seeds: ``python -m referee_pocket.train all``."""
