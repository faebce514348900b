"""What a person at a boot sees and does."""
