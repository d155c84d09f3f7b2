"""People judge the pairs that a filter distrusted, on a page."""
