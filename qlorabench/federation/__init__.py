"""The federation: model, wire, clients, the round loop and what it leaves on disk."""
