"""The queue process."""
