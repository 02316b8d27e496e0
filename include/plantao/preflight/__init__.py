"""What `plantao check` looks at."""
