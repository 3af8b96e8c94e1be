"""One running node: the gateway and its parts, changes on their way into snapshots, workers, start and end."""
