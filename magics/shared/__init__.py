"""Shared by all magics: option lines, output areas, the connection to the service, job texts, labels."""
