"""Records: one flat row a measurement, in an append-only journal; leaderboards are functions of it."""
