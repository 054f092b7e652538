"""What runs in the actor of a node: it owns that node's pool."""
