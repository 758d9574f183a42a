"""Rivals: the same work as most would write it, on the same machine, database, broker and simulator."""
