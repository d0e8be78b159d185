// Deploys the contract of a bundle with polkadot-js, as //Alice, and prints its address.
//
//     node deploy.mjs BUNDLE URL
import { Keyring } from '@polkadot/keyring';

import { Processor, connect, readBundle } from './processor.mjs';

// The defaults of protocol 2.4, in bytes, milliseconds and counts.
const PARAMETERS = {
  maxPayload: 8_192,
  maxReference: 1_073_741_824,
  minTtl: 60_000,
  maxTtl: 604_800_000,
  rateLimit: 60,
  rateWindow: 3_600_000,
  maxAttestationAge: 600_000,
  maxClockSkew: 60_000,
  maxRegistration: 2_592_000_000,
  markGrace: 3_600_000,
};

const [bundlePath, url] = process.argv.slice(2);
const api = await connect(url);
const alice = new Keyring({ type: 'sr25519' }).addFromUri('//Alice');
const processor = await Processor.deploy(api, readBundle(bundlePath), alice, PARAMETERS);
console.log(processor.address);
process.exit(); // Hanging up in good order takes the node five seconds.
