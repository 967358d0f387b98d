"""The nouns of Headrace: frozen values without I/O, shared by the whole server side."""
