"""What a verb takes where the user names no model; light, for every verb is read when `cots` starts."""

CHAMPION = "models:/cots-index@champion"
