"""One file a figure: the few functions its notebook calls. They see a model and return tables."""
