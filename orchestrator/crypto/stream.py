"""
The body of an envelope: a padded plaintext as a libsodium secretstream (protocol 3.4).

Every chunk but the last holds 65,536 bytes and carries tag MESSAGE, the last holds 1 to 65,536
and carries FINAL. Nothing of the plaintext leaves `open_body` before FINAL and the padding were
checked. Peak memory is the body, its chunks once, and the plaintext.
"""

from collections.abc import Iterator

from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_ABYTES as TAG_LENGTH,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_HEADERBYTES as HEADER_LENGTH,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_init_pull as init_pull,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_init_push as init_push,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_pull as pull,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_push as push,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_state as new_state,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_TAG_FINAL as TAG_FINAL,
)
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE as TAG_MESSAGE,
)
from nacl.exceptions import CryptoError

from orchestrator.crypto.padding import LENGTH_BYTES, padded_length
from orchestrator.errors import EncodingError

CHUNK_LENGTH = 65_536
_SEALED_CHUNK_LENGTH = CHUNK_LENGTH + TAG_LENGTH


def body_length(plaintext_length: int) -> int:
    """Return how long the body of a plaintext of this length is."""
    padded = padded_length(plaintext_length)
    chunks = -(-padded // CHUNK_LENGTH)
    return HEADER_LENGTH + padded + chunks * TAG_LENGTH


def seal_body(plaintext: bytes, *, key: bytes, associated: bytes) -> list[bytes]:
    """Return the pieces of the body: the stream's header and its chunks."""
    state = new_state()
    pieces = [init_push(state, key)]
    total = padded_length(len(plaintext))
    offset = 0
    for chunk in _padded_chunks(plaintext, total):
        offset += len(chunk)
        tag = TAG_FINAL if offset == total else TAG_MESSAGE
        pieces.append(push(state, chunk, associated, tag))
    return pieces


def open_body(body: memoryview, *, key: bytes, associated: bytes) -> bytes:
    """
    Return the plaintext in *body*.

    1. Every chunk opens under the key and the associated data.
    2. FINAL is the tag of the last chunk and of no other, all others have MESSAGE.
    3. The padded text is as long as its length says, and its padding is zeros.

    Raises:
        EncodingError: A check failed; it is not for the eyes of others which one.
    """
    state = new_state()
    if len(body) < HEADER_LENGTH + TAG_LENGTH + LENGTH_BYTES:
        raise EncodingError("the body is too short")
    init_pull(state, bytes(body[:HEADER_LENGTH]), key)
    chunks: list[bytes] = []
    for start in range(HEADER_LENGTH, len(body), _SEALED_CHUNK_LENGTH):
        sealed = bytes(body[start : start + _SEALED_CHUNK_LENGTH])
        # A rest that is no longer than a tag can't hold the byte that a chunk has at least.
        if len(sealed) <= TAG_LENGTH:
            raise EncodingError("an empty chunk")
        try:
            chunk, tag = pull(state, sealed, associated)  # 1.
        except CryptoError as error:
            raise EncodingError("a chunk did not open") from error
        is_last = start + _SEALED_CHUNK_LENGTH >= len(body)
        if tag != (TAG_FINAL if is_last else TAG_MESSAGE):  # 2.
            raise EncodingError("a tag in the wrong place")
        chunks.append(chunk)
    return _remove_padding(chunks)


def _padded_chunks(plaintext: bytes, total: int) -> Iterator[bytes]:
    """Yield the padded text in chunks without ever building it."""
    prefix = len(plaintext).to_bytes(LENGTH_BYTES, "little")
    view = memoryview(plaintext)
    yield (prefix + view[: CHUNK_LENGTH - LENGTH_BYTES]).ljust(min(total, CHUNK_LENGTH), b"\0")
    for start in range(CHUNK_LENGTH, total, CHUNK_LENGTH):
        piece = bytes(view[start - LENGTH_BYTES : start - LENGTH_BYTES + CHUNK_LENGTH])
        yield piece.ljust(min(total - start, CHUNK_LENGTH), b"\0")


def _remove_padding(chunks: list[bytes]) -> bytes:
    """Check the padding (3.) and return the plaintext; the chunks are used up."""
    total = sum(map(len, chunks))
    length = int.from_bytes(chunks[0][:LENGTH_BYTES], "little")
    if length > total or padded_length(length) != total:
        raise EncodingError("the length does not belong to the padded length")
    # Padmé adds at most 12 %, so the padding may be longer than the last chunk.
    end = LENGTH_BYTES + length
    for index, chunk in enumerate(chunks):
        inside = max(0, min(len(chunk), end - index * CHUNK_LENGTH))
        if chunk.count(0, inside) != len(chunk) - inside:
            raise EncodingError("the padding is not zeros")
        if inside < len(chunk):
            chunks[index] = chunk[:inside]
    chunks[0] = chunks[0][LENGTH_BYTES:]
    return b"".join(chunks)
