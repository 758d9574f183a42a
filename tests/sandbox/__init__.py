"""The simulator against its own contract, over HTTP."""
