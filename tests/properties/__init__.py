"""The verbs in any order, against a small model: see `test_verbs.py`."""
