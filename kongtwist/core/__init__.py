"""How traffic is decided: plain functions and values, without I/O."""
