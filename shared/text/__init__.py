"""Text that people send or read: fields, names, UPI ids, UTRs, CSV cells, invisible characters."""
