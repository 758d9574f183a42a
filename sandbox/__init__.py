"""The outside world on a laptop: never part of the production image."""
