"""The ground floor: options, context, errors, messaging, policy, metrics. Knows no table and no service."""
