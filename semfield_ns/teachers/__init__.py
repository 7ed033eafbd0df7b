"""2-D feature extractors behind one small protocol, and their cache."""
