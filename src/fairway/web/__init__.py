"""Pages and the management API over the public functions."""
