"""One module a figure; see `reports.registry`."""
