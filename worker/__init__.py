"""The worker process: it consumes the queues."""
