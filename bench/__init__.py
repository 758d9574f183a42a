"""Side-by-side measurements. Each prints a ratio against an honest rival, from one run."""
