"""RazorpayX. Only this folder knows its API. Facts: docs/reference/razorpayx.md."""
