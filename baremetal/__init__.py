"""The bare-metal role."""
