// Decodes vectors with @polkadot/api-contract's Abi and encodes them again, without a node.
//
// stdin: { bundle: path, cases: [{ kind, label, bytes }] }, kinds as in vectors.py.
// stdout: [{ encoded, variants }] in the same order; `variants` are the names of the outermost
// enums of a returned value, from the outside in: ["Ok", "Err", "WrongStatus"].
import { readFileSync } from 'node:fs';

import { Abi } from '@polkadot/api-contract';
import {
  compactAddLength,
  compactStripLength,
  hexToU8a,
  u8aConcat,
  u8aToHex,
} from '@polkadot/util';

const { bundle, cases } = JSON.parse(readFileSync(0, 'utf8'));
const abi = new Abi(readFileSync(bundle, 'utf8'));

function reencodeCall({ args, message }, label) {
  if (message.identifier !== label) throw new Error(`decoded as ${message.identifier}`);
  const [, bytes] = compactStripLength(message.toU8a(args));
  return { encoded: bytes, variants: [] };
}

function reencodeResult({ returnType }, bytes) {
  // Pedantic: an error when the bytes of the decoded value are others.
  const options = { isPedantic: true };
  const name = returnType.lookupName || returnType.type;
  const value = abi.registry.createTypeUnsafe(name, [bytes], options);
  const variants = [];
  for (let inner = value; inner?.type !== undefined; inner = inner.inner) variants.push(inner.type);
  return { encoded: value.toU8a(), variants };
}

function reencodeEvent(label, bytes) {
  const topic = abi.json.spec.events.find((spec) => spec.label === label).signature_topic;
  const event = abi.events.find(({ signatureTopic }) => signatureTopic === topic);
  const { args } = event.fromU8a(bytes);
  return { encoded: u8aConcat(...args.map((arg) => arg.toU8a())), variants: [] };
}

const KINDS = {
  call: (label, bytes) => reencodeCall(abi.decodeMessage(compactAddLength(bytes)), label),
  result: (label, bytes) => reencodeResult(abi.findMessage(label), bytes),
  construction: (label, bytes) =>
    reencodeCall(abi.decodeConstructor(compactAddLength(bytes)), label),
  constructed: (label, bytes) => reencodeResult(abi.findConstructor(label), bytes),
  event: reencodeEvent,
};

const outcomes = cases.map(({ kind, label, bytes }) => {
  const { encoded, variants } = KINDS[kind](label, hexToU8a(bytes));
  return { encoded: u8aToHex(encoded), variants };
});
process.stdout.write(JSON.stringify(outcomes));
