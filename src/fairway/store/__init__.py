"""Metadata, blobs, jobs and the audit log."""
