"""Looking at attention maps: streamed statistics, their pictures, and comparison; a map is never held whole."""
