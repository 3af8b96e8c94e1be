"""Kong's plugin development kit as plain Python functions over an exchange; no Lua in here."""
