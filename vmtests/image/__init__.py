"""Images: described (`spec`), built (`assemble`), found again (`cache`), checked (`inspect`), packed (`archive`)."""
