"""Search by meaning: a worker with the model and its vectors, and the agent's side of it."""
