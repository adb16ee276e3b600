"""Supervisor and entry points of gateway, console and worker."""
