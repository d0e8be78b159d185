"""What jobs and results say once they are opened: canonical CBOR maps (protocol section 3.4)."""

from orchestrator.encoding.cbor import decode_cbor, encode_cbor
from orchestrator.errors import EncodingError
from orchestrator.models import TaskInput


def encode_task_input(task_input: TaskInput) -> bytes:
    """
    Return the plaintext of a job.

    Raises:
        EncodingError: A parameter is of a kind that has no encoding, or they are too many.
    """
    return encode_cbor(
        {
            "task": task_input.task,
            "input": task_input.input,
            "parameters": task_input.parameters,
        },
        extended=True,
    )


def decode_task_input(data: bytes) -> TaskInput:
    """
    Return what a job's plaintext asks for.

    Raises:
        EncodingError: The bytes are not the canonical encoding of a task input.
    """
    fields = _decode_map(data, keys={"task", "input", "parameters"}, extended=True)
    task, content, parameters = fields["task"], fields["input"], fields["parameters"]
    if not isinstance(task, str):
        raise EncodingError("task: must be text")
    if not isinstance(content, bytes):
        raise EncodingError("input: must be bytes")
    if not isinstance(parameters, dict):
        raise EncodingError("parameters: must be a map")
    return TaskInput(task=task, input=content, parameters=parameters)


def encode_output(output: bytes) -> bytes:
    """Return the plaintext of a completed job's result."""
    return encode_cbor({"output": output})


def decode_output(data: bytes) -> bytes:
    """
    Return the output in a completed job's plaintext.

    Raises:
        EncodingError: The bytes are not the canonical encoding of an output.
    """
    output = _decode_map(data, keys={"output"})["output"]
    if not isinstance(output, bytes):
        raise EncodingError("output: must be bytes")
    return output


def encode_failure(code: str, message: str | None = None) -> bytes:
    """Return the plaintext of a failure report; without a message it holds only the code."""
    report = {"error": code} if message is None else {"error": code, "message": message}
    return encode_cbor(report)


def decode_failure(data: bytes) -> tuple[str, str | None]:
    """
    Return code and message of a failure report.

    Raises:
        EncodingError: The bytes are not the canonical encoding of a report.
    """
    fields = _decode_map(data, keys={"error"}, optional={"message"})
    code, message = fields["error"], fields.get("message")
    if not isinstance(code, str) or not isinstance(message, str | None):
        raise EncodingError("error and message: must be text")
    return code, message


def _decode_map(
    data: bytes,
    *,
    keys: set[str],
    optional: frozenset[str] | set[str] = frozenset(),
    extended: bool = False,
) -> dict[str, object]:
    value = decode_cbor(data, extended=extended)
    if not isinstance(value, dict):
        raise EncodingError("the plaintext is not a map")
    if not keys <= value.keys() <= keys | optional:
        raise EncodingError(f"the plaintext has not exactly the keys {sorted(keys)}")
    return value
