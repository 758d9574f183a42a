"""The web process. One module per kind of caller, so one rule of who may enter each."""
