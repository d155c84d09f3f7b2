"""The model that commands use by default. Imports nothing, because `cots` reads it at every start."""

CHAMPION = "models:/cots-index@champion"
