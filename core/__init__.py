"""The ground floor: options, context, errors, messaging, policy, logging, metrics. Knows no table and no service."""
