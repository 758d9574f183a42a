"""The local stack and the provider simulator. Never part of the production image."""
