"""Shipped suites, planted streams, and the driver that replays history."""
