"""Intents: steps, the engine that runs them, state tables, roles. Knows no table."""
