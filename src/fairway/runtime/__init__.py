"""The package format of a version, its one loader, and the runtimes that answer for it."""
