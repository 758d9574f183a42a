"""The queues: their names, the messages in them, the broker, and which workers consume them."""
