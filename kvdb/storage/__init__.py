"""What the log promised is on disk, in order, checksummed."""
