"""How people and Prometheus see the running system: gauges, overview, timeline, totals, watchdog."""
