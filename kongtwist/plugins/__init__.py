"""What can be added: one plugin is one module."""
