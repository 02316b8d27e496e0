"""Takes what was loaded, gives figures that tell whether the model is still any good."""
