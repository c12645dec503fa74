"""Submissions: schema, validation, verification, and the board. No torch at import."""
