"""Where the frames of one instance lie: a plan per kind of pixel data, and the JSON form of the result."""
