"""HTTP/2 without I/O: frames, header compression, settings, what heads mean, budgets against floods."""
