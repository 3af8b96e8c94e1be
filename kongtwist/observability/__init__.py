"""What a node tells of itself: logs and counters."""
