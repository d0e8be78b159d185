"""How a task's output leaves the program: to a file, as text, or inside a JSON document."""

import base64
import sys
from pathlib import Path

from orchestrator.cli.output import Document, JsonValue
from orchestrator.cli.session import Session


def show_output(session: Session, output: bytes, path: Path | None, facts: Document) -> None:
    """
    Write *output* to the new file *path*, or to stdout, and *facts* beside it.

    With `--json` stdout holds one document, which has the output as text where it is
    UTF-8 and as base64 always.
    """
    from orchestrator.keystore.private_files import write_new_file

    if path is not None:
        write_new_file(path, output)
        session.output.result({**facts, "output_bytes": len(output), "written": str(path)})
        return
    if session.output.as_json:
        document: dict[str, JsonValue] = {**facts, "output_bytes": len(output)}
        try:
            document["output"] = output.decode("utf-8")
        except UnicodeDecodeError:
            document["output"] = None
        document["output_base64"] = base64.b64encode(output).decode("ascii")
        session.output.result(document)
        return
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()
