"""Records to evidence: tidy frames, measures, statistics, claims. Never imports JAX."""
