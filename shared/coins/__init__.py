"""Coins: wallets with their journal, and manual credits and adjustments."""
