"""The one error a report raises for a user's mistake."""


class ReportError(Exception):
    """One line: what is wrong with the results folder or the output, and what to do."""
