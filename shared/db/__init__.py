"""Connections to PostgreSQL, transactions, and the causes why PostgreSQL or Redis cannot be used."""
