"""Tests that users can subclass for methods of their own."""

from bench.testing.contract import MethodContract

__all__ = ["MethodContract"]
