"""Confidential jobs on TEE workers, with every attestation verified by the contract itself."""

__all__: list[str] = []
