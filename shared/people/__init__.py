"""Operators: their accounts, the audit log, exception records, and the maker-checker rules."""
