"""What a person says of the picture beside the prompt: one to begin with, what of it may change, what a part shows."""
