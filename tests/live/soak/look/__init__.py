"""A folder for PYTHONPATH: every Python process that finds it there can be asked what it holds (`sitecustomize`)."""
