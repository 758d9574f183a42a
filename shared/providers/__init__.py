"""Payout providers: what all of them share, and one folder for each."""
