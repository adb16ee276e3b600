"""The fifteen verbs."""
