"""The escape suite: attacks that run inside a live worker. `suite.run` judges them, `openinfer doctor --sandbox` prints the table."""
