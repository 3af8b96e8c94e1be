"""Which target of an upstream a request goes to."""
