"""The scheduler role: arithmetic over columns of host state, claims in SQL."""
