"""What a team relies on for years: pins and gc, retention, erasure, the doctor, and production as it was at a time."""
