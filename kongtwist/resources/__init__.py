"""Routes as Resources: the tree our listeners ask and the one a twisted.web Site mounts."""
