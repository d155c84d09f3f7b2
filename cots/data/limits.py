"""What is read of a data set unless parameters or options say otherwise."""

MIN_SIDE = 16  # pixels, of an image
MAX_PIXELS = 50_000_000  # of an image
MAX_FRAMES = 6  # that are taken of a video
MAX_BYTES = 1_000_000_000  # of an image or a video
MAX_SECONDS = 300.0  # of one core, to decode a video
MAX_CAPTION_CHARS = 500
