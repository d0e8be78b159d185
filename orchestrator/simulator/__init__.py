"""A TEE platform of our own: quotes of Intel's format, under a root that proves nothing."""
