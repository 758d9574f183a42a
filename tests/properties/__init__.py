"""All actions in any order, checked against a small model: see `test_verbs.py`."""
