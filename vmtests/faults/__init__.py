"""Ways to break an image or its machine, and the verdict that each must get."""
