"""Submissions: their schema, validation, verification, and the board made of them. No torch at import."""
