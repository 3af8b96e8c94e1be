"""A request on its way: the tree of routes, a route, the upstream and back; in our own listeners and in any Site."""
