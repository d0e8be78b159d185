"""
The embedded chain: the same compiled contract without a node, for development and tests.

It runs the contract's WebAssembly as pallet-contracts would (`chain.host`, `chain.machine`) and
keeps its state in one SQLite file that several processes may share (`chain.state`,
`chain.file`). What it is not: there is no consensus and there are no fees, deposits or balances;
whoever can write the file can write anything into it, and nobody checks a signature over a
transaction.

* One block per transaction, final at once. A refused or trapped transaction makes no block.
* A block's time is the clock's (plus what `advance_time` added), never before the last block's.
* Calls, dry runs and reads see that time; on a node, dry runs see the last block's.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TypeVar

from orchestrator.chain import (
    AccountInfo,
    Block,
    ContractCall,
    Cursor,
    Deployment,
    Estimate,
    EventPage,
    RawEvent,
    Receipt,
)
from orchestrator.chain import machine as machines
from orchestrator.chain.machine import Call, Machine, Outcome
from orchestrator.chain.scale import compact
from orchestrator.chain.state import Head, State, StorageStats, StoredEvent
from orchestrator.errors import ChainMismatchError, ContractError, InputError
from orchestrator.models import Account

__all__ = ["EmbeddedChain", "contract_address"]

T = TypeVar("T")

_HASH_BYTES = 32
_MAX_TIME = (1 << 63) - 1
_ZERO = bytes(32)


class _UndoError(Exception):
    """Undoes what was only tried."""


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=_HASH_BYTES).digest()


def contract_address(deployer: bytes, code_hash: bytes, input_data: bytes, salt: bytes) -> bytes:
    """
    Return the address that pallet-contracts gives a contract.

    `DefaultAddressGenerator` hashes a tuple in SCALE, so input and salt carry their lengths.
    """
    parts = (compact(len(input_data)), input_data, compact(len(salt)), salt)
    return _hash(b"contract_addr_v1" + deployer + code_hash + b"".join(parts))


class EmbeddedChain:
    """
    A development chain in a file, or in memory (`":memory:"`).

    *clock* gives the time in ms. Unless *create* is set, the file has to exist.

    Any number of instances, in one process or several, may have the file open. A process that has
    it open must not open, copy or hash the file in any other way, not even to read it: closing the
    file again takes away the locks of every instance in that process (see `chain.file`), and
    blocks that were acknowledged get lost. Another process may; a copy is whole once all
    instances are closed.

    Raises:
        InputError: There is no such file, or the path can't be used.
        ChainMismatchError: The file is no chain file, damaged, or of another version.
        ChainUnavailableError: The file can't be opened now.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], int] = _wall_clock,
        create: bool = True,
        busy_timeout_seconds: float = 30.0,
    ) -> None:
        self._clock = clock
        self._state = State(
            None if path == ":memory:" else Path(path),
            create=create,
            now=clock(),
            busy_timeout_seconds=busy_timeout_seconds,
        )
        self._machine = Machine()

    @property
    def genesis_hash(self) -> bytes:
        """The chain's identity, random when its file was made."""
        return self._state.genesis_hash

    def deploy(
        self, code: bytes, constructor: ContractCall[None], *, signer: Account, salt: bytes = b""
    ) -> Deployment:
        """
        Upload *code* and instantiate it.

        Raises:
            InputError: The code is refused, or the address is taken (use another salt).
            ContractError: The constructor refused.
            ContractTrappedError: The constructor trapped.
        """
        deployer = signer.account_id
        address = contract_address(deployer, _hash(code), constructor.data, salt)
        return self._deploy_at(address, code, constructor, deployer)

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        """
        Upload *code* and return its code hash.

        Raises:
            InputError: The code is refused.
        """
        machines.check(code)
        code_hash = _hash(code)
        with self._state.writing():
            head = self._state.head()
            self._state.add_code(code_hash, code)
            self._seal(head, self._time(head), signer.account_id, [code_hash])
            self._before_commit()
        return code_hash

    def code_hash(self, contract: bytes) -> bytes | None:
        """Return the hash of the code that *contract* runs."""
        with self._state.reading():
            found = self._state.contract(contract)
        return None if found is None else found[1]

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        """Return what the call would return now, changing nothing."""
        with self._state.reading():
            head = self._state.head()
            number, code_hash = self._contract(call)
            outcome = self._run(
                "call", call, call.contract, number, code_hash, caller, self._time(head)
            )
        return _value(call, outcome)

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        """Return what the call would return now; there is no money here."""
        return Estimate(value=self.dry_run(call, caller=caller), cost=None)

    def estimate_deploy(
        self, code: bytes, constructor: ContractCall[None], *, deployer: bytes, salt: bytes = b""
    ) -> Estimate[None]:
        """
        Find out whether `deploy` would be refused now; there is no money here.

        Raises: as `deploy`.
        """
        address = contract_address(deployer, _hash(code), constructor.data, salt)
        with contextlib.suppress(_UndoError), self._state.writing():
            timestamp = self._time(self._state.head())
            self._instantiate(address, code, constructor, deployer, timestamp)
            raise _UndoError
        return Estimate(value=None, cost=None)

    def read(self, call: ContractCall[T]) -> T:
        """Return what a read message returns at the head."""
        return self.dry_run(call, caller=_ZERO)

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        """
        Make the call in a block of its own.

        Raises:
            ContractError: The contract refused; nothing changed.
            ContractTrappedError: It trapped; nothing changed.
        """
        result = self.batch([call], signer=signer)[0]
        if isinstance(result, ContractError):
            raise result
        return result

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        """
        Make the calls in one block; each succeeds or is refused by itself.

        When every call is refused, nothing changes and there is no block.

        Raises:
            ContractTrappedError: One of the calls trapped; none is kept.
        """
        caller = signer.account_id
        with self._state.writing():
            head = self._state.head()
            timestamp = self._time(head)
            results = [self._attempt(call, caller, timestamp) for call in calls]
            if all(isinstance(result, ContractError) for result in results):
                return [result for result in results if isinstance(result, ContractError)]
            block = self._seal(head, timestamp, caller, [call.data for call in calls])
            receipts = self._receipts(calls, results, block)
            self._before_commit()
        return receipts

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        """Return events of *contract* after the cursor, at most *limit*, in order."""
        if limit < 1:
            message = f"limit: {limit} is not a positive number"
            raise InputError(message)
        with self._state.reading():
            head = self._state.head()
            found = self._state.contract(contract)
            stored = (
                []
                if found is None
                else self._state.events(found[0], (after.block, after.index), limit)
            )
        events = tuple(_raw_event(contract, event) for event in stored)
        # Fewer than asked for: everything up to the head was looked at.
        seen = [] if len(events) == limit else [Cursor(block=head.number, index=-1)]
        return EventPage(
            events=events, next=max([after, *seen, *(event.cursor for event in events[-1:])])
        )

    def finalized_head(self) -> Block:
        """Return the last block."""
        with self._state.reading():
            head = self._state.head()
        return Block(number=head.number, hash=head.hash, timestamp=head.timestamp)

    def block_hash(self, number: int) -> bytes | None:
        """Return the hash of the block of that number, `None` when there is none yet."""
        with self._state.reading():
            return self._state.block_hash(number)

    def now(self) -> int:
        """Return the time (ms) that a call made now would see."""
        with self._state.reading():
            return self._time(self._state.head())

    def advance_time(self, milliseconds: int) -> None:
        """Put the chain's clock ahead, for every process that uses the file."""
        with self._state.writing():
            head = self._state.head()
            offset = head.clock_offset + milliseconds
            if milliseconds < 0 or self._clock() + offset > _MAX_TIME:
                message = f"milliseconds: {milliseconds} is not in 0..{_MAX_TIME - self._clock()}"
                raise InputError(message)
            self._state.set_clock_offset(offset)

    def account(self, account_id: bytes) -> AccountInfo:
        """Return an account's next nonce; there is no money here."""
        with self._state.reading():
            return AccountInfo(nonce=self._state.nonce(account_id), balance=None)

    def wait_for_pending(
        self, account_id: bytes, *, timeout_seconds: float, signer: Account | None = None
    ) -> None:
        """Return: a transaction here is in a block, or it never was."""

    def storage_stats(self, contract: bytes) -> StorageStats:
        """Return what the contract stores, as the pallet counts it for deposits."""
        sizes = self.cell_sizes(contract)
        return StorageStats(items=len(sizes), bytes=sum(sizes.values()))

    def cell_sizes(self, contract: bytes) -> dict[bytes, int]:
        """Return the length of every storage cell's value, by key."""
        with self._state.reading():
            found = self._state.contract(contract)
            return {} if found is None else self._state.cell_sizes(found[0])

    def close(self) -> None:
        """Close the file."""
        self._state.close()

    def _before_commit(self) -> None:
        """Do nothing: tests override this to die in the middle of a transaction."""

    def _time(self, head: Head) -> int:
        return max(min(self._clock() + head.clock_offset, _MAX_TIME), head.timestamp)

    def _contract(self, call: ContractCall[T]) -> tuple[int, bytes]:
        found = self._state.contract(call.contract)
        if found is None:
            message = f"{call.label}: there is no contract 0x{call.contract.hex()} on this chain"
            raise ChainMismatchError(message)
        return found

    def _deploy_at(
        self, address: bytes, code: bytes, constructor: ContractCall[None], deployer: bytes
    ) -> Deployment:
        with self._state.writing():
            head = self._state.head()
            timestamp = self._time(head)
            code_hash, number, outcome = self._instantiate(
                address, code, constructor, deployer, timestamp
            )
            block = self._seal(head, timestamp, deployer, [constructor.data])
            self._emit(address, number, outcome, block, 0)
            self._before_commit()
        return Deployment(contract=address, code_hash=code_hash, block=block, fee=0)

    def _instantiate(
        self,
        address: bytes,
        code: bytes,
        constructor: ContractCall[None],
        deployer: bytes,
        timestamp: int,
    ) -> tuple[bytes, int, Outcome]:
        machines.check(code)
        code_hash = _hash(code)
        if self._state.contract(address) is not None:
            message = f"salt: the contract 0x{address.hex()} exists already"
            raise InputError(message)
        self._state.add_code(code_hash, code)
        number = self._state.add_contract(address, code_hash)
        outcome = self._run("deploy", constructor, address, number, code_hash, deployer, timestamp)
        _value(constructor, outcome)
        self._keep(number, outcome)
        return code_hash, number, outcome

    def _attempt(
        self, call: ContractCall[T], caller: bytes, timestamp: int
    ) -> tuple[T, Outcome, int] | ContractError:
        number, code_hash = self._contract(call)
        outcome = self._run("call", call, call.contract, number, code_hash, caller, timestamp)
        try:
            value = _value(call, outcome)
        except ContractError as error:
            return error
        self._keep(number, outcome)
        return value, outcome, number

    def _run(
        self,
        entry: Literal["call", "deploy"],
        call: ContractCall[T],
        address: bytes,
        number: int,
        code_hash: bytes,
        caller: bytes,
        timestamp: int,
    ) -> Outcome:
        state = self._state
        return self._machine.run(
            entry,
            Call(
                label=call.label,
                account=address,
                caller=caller,
                timestamp=timestamp,
                input=call.data,
                read_cell=lambda key: state.cell(number, key),
                has_code=state.has_code,
            ),
            code_hash=code_hash,
            load=lambda: state.code(code_hash) or b"",
        )

    def _keep(self, number: int, outcome: Outcome) -> None:
        for key, value in outcome.cells.items():
            self._state.set_cell(number, key, value)
        if outcome.new_code is not None:
            self._state.set_code_hash(number, outcome.new_code)

    def _seal(self, head: Head, timestamp: int, caller: bytes, transaction: list[bytes]) -> Block:
        number = head.number + 1
        parts = [number.to_bytes(8, "little"), timestamp.to_bytes(8, "little"), caller]
        block_hash = _hash(head.hash + b"".join(parts) + b"".join(map(_hash, transaction)))
        self._state.add_block(number, block_hash, timestamp)
        self._state.use_nonce(caller)
        return Block(number=number, hash=block_hash, timestamp=timestamp)

    def _emit(
        self, address: bytes, number: int, outcome: Outcome, block: Block, first: int
    ) -> tuple[RawEvent, ...]:
        events = []
        for index, (topics, data) in enumerate(outcome.events, first):
            self._state.add_event(number, block.number, index, b"".join(topics), data)
            events.append(
                RawEvent(contract=address, topics=topics, data=data, block=block, index=index)
            )
        return tuple(events)

    def _receipts(
        self,
        calls: Sequence[ContractCall[T]],
        results: Sequence[tuple[T, Outcome, int] | ContractError],
        block: Block,
    ) -> list[Receipt[T] | ContractError]:
        receipts: list[Receipt[T] | ContractError] = []
        first = 0
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, ContractError):
                receipts.append(result)
                continue
            value, outcome, number = result
            events = self._emit(call.contract, number, outcome, block, first)
            first += len(events)
            receipts.append(Receipt(value=value, events=events, block=block, fee=0))
        return receipts


def _value(call: ContractCall[T], outcome: Outcome) -> T:
    """Return the decoded value; what reverted must hold a refusal."""
    value = call.decode(outcome.output)
    if outcome.reverted:
        message = f"{call.label}: the contract reverted and named no error"
        raise ChainMismatchError(message)
    return value


def _raw_event(contract: bytes, event: StoredEvent) -> RawEvent:
    topics = tuple(
        event.topics[at : at + _HASH_BYTES] for at in range(0, len(event.topics), _HASH_BYTES)
    )
    block = Block(number=event.block, hash=event.block_hash, timestamp=event.timestamp)
    return RawEvent(
        contract=contract, topics=topics, data=event.data, block=block, index=event.position
    )
