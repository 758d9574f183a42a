"""Proof that the ledger is intact: seals, certificates, and integrity checks for every promise."""
