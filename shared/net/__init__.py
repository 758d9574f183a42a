"""Connections to servers that are not ours: bounded in time, encrypted, and never to a private address.

sockets    connect, encrypt, and a watchdog that hangs up at a deadline
addresses  which URLs an app may register, and which of their addresses we connect to
"""
