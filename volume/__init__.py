"""The block storage role."""
