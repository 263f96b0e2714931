"""The opened profile: cached stages, workers, sweeps, choosing a setting, saving figures."""
