"""The web process. One module per kind of caller, so each has one rule for access."""
