// Accounts as polkadot-js has them.
//
// stdin: { uris, passphrase }; stdout: { accounts, exported }, the account ids of the secret URIs
// and the first one's JSON file under the passphrase.
import { readFileSync } from 'node:fs';

import { Keyring } from '@polkadot/keyring';
import { u8aToHex } from '@polkadot/util';
import { cryptoWaitReady } from '@polkadot/util-crypto';

const { uris, passphrase } = JSON.parse(readFileSync(0, 'utf8'));
await cryptoWaitReady();
const pairs = uris.map((uri) => new Keyring({ type: 'sr25519' }).addFromUri(uri));
const answer = {
  accounts: pairs.map((pair) => u8aToHex(pair.publicKey)),
  exported: pairs[0].toJson(passphrase),
};
process.stdout.write(JSON.stringify(answer));
