// What a worker with a key pair of polkadot-js would send, without a chain.
//
// stdin: { type, seed, domain, registration, statement } as in statement.mjs.
// stdout: the pair's public key, the bytes that were to be signed, and the signatures: `possession`
// and `signature` by the protocol, `wrapped` as a browser wallet's signRaw would have made it, and
// `hashed_again` over the digest, by which the ecdsa pair signs the digest's own hash.
import { readFileSync } from 'node:fs';

import { Keyring } from '@polkadot/keyring';
import { hexToU8a, u8aToHex, u8aWrapBytes } from '@polkadot/util';
import { blake2AsU8a, cryptoWaitReady } from '@polkadot/util-crypto';

import { encodeRegistration, encodeStatement, signWith } from './statement.mjs';

const { type, seed, domain, registration, statement } = JSON.parse(readFileSync(0, 'utf8'));
await cryptoWaitReady();
const pair = new Keyring().addFromSeed(hexToU8a(seed), {}, type);
const registered = encodeRegistration(registration, pair, domain);
const stated = encodeStatement({ ...domain, ...statement });
const digest = blake2AsU8a(stated);
const [possession] = Object.values(signWith(pair, registered));
const [signature] = Object.values(signWith(pair, stated));
const answer = {
  public_key: u8aToHex(pair.publicKey),
  registration: u8aToHex(registered),
  statement: u8aToHex(stated),
  possession,
  signature,
  wrapped: u8aToHex(pair.sign(u8aWrapBytes(type === 'ecdsa' ? stated : digest))),
  hashed_again: u8aToHex(pair.sign(type === 'ecdsa' ? digest : blake2AsU8a(digest))),
};
process.stdout.write(JSON.stringify(answer));
