"""The model that commands use by default. A module without imports, because `cots` loads it at every start."""

CHAMPION_URI = "models:/cots-index@champion"
