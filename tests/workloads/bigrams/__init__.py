"""A toy modality that the program does not know: a table of letter pairs. Everything about it is in this folder."""
