"""The registrar: admits workers on verified evidence, renews them, and warns before that fails."""
