"""Training in a child process, and the evaluation of what it made."""
