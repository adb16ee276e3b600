"""Windows, drift, live performance and alarms."""
