"""One module for each layout of images with captions: its keys in `params.yaml`, and its reader."""
