"""Schemas that are too long to stand beside their handlers."""
