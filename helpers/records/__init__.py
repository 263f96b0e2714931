"""What is kept: results on disk, verified when they are read, and what made them."""
