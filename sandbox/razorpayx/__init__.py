"""A RazorpayX simulator: its own HTTP server, no kinder than the provider. See README.md."""
