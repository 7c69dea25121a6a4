"""What a step makes of its microbatches' gradients other than their sum."""
