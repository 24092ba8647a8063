"""The figures, a module each; see `reports.registry`."""
