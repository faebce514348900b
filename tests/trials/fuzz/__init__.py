"""Every parser of what others made, called as a function with bytes that mean harm."""
