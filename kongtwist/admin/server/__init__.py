"""The connections of the Admin and Status APIs."""
