"""Builders and servers that tests share; imported as `from tests.support...`."""
