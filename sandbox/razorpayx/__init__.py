"""A RazorpayX simulator: a separate HTTP server, no kinder than the provider. See README.md."""
