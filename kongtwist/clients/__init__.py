"""What plugins are given for I/O."""
