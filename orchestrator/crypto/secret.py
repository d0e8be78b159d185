"""What all values that hold a secret have in common."""

from typing import NoReturn


class Secret:
    """A value that must not leave the process by accident: it can't be pickled or copied."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and can't be pickled or copied")
