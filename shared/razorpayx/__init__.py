"""RazorpayX: what it says (`answers`, `reasons`) and how to ask it (`client`)."""
