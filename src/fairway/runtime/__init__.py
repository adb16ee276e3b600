"""The package format, the one loader, and the runtimes that predict."""
