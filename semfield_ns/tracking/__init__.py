"""Labels that follow through a video: from the labels of one frame, or of a few, to those of all frames."""
