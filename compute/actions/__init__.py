"""One file per noun of intents: the steps that the agent carries out on its host."""
