"""
Another program with keys of ours, that knows nothing of the nonces that we use: `URL`.

Reads one line per wish: `transfer FROM TO PLANCK` or `remark FROM`, the senders as public and
secret key, the receiver as an account, in hex. Answers `taken` or `refused`. It is a process, and
substrate-interface alone, so that it has no part in how this package sends.
"""

import sys

from substrateinterface import Keypair, KeypairType, SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException
from websocket import WebSocketException


def send(chain: SubstrateInterface, line: str) -> str:
    wish, public, secret, *rest = line.split()
    if wish == "transfer":
        to, planck = rest
        arguments = {"dest": {"Id": f"0x{to}"}, "value": int(planck)}
        call = chain.compose_call("Balances", "transfer_keep_alive", arguments)
    else:
        call = chain.compose_call("System", "remark", {"remark": "0x"})
    pair = Keypair.create_from_private_key(
        bytes.fromhex(secret),
        public_key=bytes.fromhex(public),
        ss58_format=42,
        crypto_type=KeypairType.SR25519,
    )
    extrinsic = chain.create_signed_extrinsic(call, pair)
    try:
        chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
    except SubstrateRequestException:
        return "refused"
    return "taken"


def main() -> None:
    chain = SubstrateInterface(url=sys.argv[1])
    for line in sys.stdin:
        try:
            answer = send(chain, line)
        except (OSError, WebSocketException):
            # The node was started anew since the last wish.
            chain = SubstrateInterface(url=sys.argv[1])
            answer = send(chain, line)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
