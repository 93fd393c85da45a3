"""Backends of block storage."""
