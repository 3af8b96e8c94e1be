"""HTTP messages as values: heads, headers, bodies, paths, and the bodies of errors."""
