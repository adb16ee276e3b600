"""Runs, versions and datasets as the store keeps them."""
