"""Tests with evidence that gate a version, and the endpoint test in staging."""
