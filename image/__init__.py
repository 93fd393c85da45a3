"""The image worker: stores, inspection and streaming of image data."""
