"""What a cluster stands on, replaced by what a seed decides."""
