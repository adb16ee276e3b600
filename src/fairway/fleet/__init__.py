"""The loop: what alarms and ages lead to, and the defaults per risk."""
