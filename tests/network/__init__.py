"""Network agents and their drivers."""
