// Encodes and decodes vectors with @polkadot-api/ink-contracts, by the bundle's metadata alone.
//
// stdin: { bundle: path, cases: [{ kind, label, value, bytes }] }, kinds as in vectors.py.
// stdout: [{ encoded, decoded }] in the same order: `encoded` from `value`, `decoded` from `bytes`.
//
// A value in JSON: integers are decimal text, bytes 0x text, an enum { variant, value }, an absent
// option null. The types say how the library wants it.
import { readFileSync } from 'node:fs';

import { getInkClient, getInkDynamicBuilder, getInkLookup } from '@polkadot-api/ink-contracts';
import { hexToU8a, u8aToHex } from '@polkadot/util';
import { decodeAddress, encodeAddress } from '@polkadot/util-crypto';

const SMALL = new Set(['u8', 'u16', 'u32', 'i8', 'i16', 'i32']);

/** The library's value of a type, from JSON. */
function fromJson(type, json) {
  switch (type.type) {
    case 'void':
      return undefined;
    case 'primitive':
      if (typeof json !== 'string' || type.value === 'str') return json;
      return SMALL.has(type.value) ? Number(json) : BigInt(json);
    case 'AccountId32':
      return encodeAddress(json);
    case 'sequence':
      return isByte(type.value) ? hexToU8a(json) : json.map((item) => fromJson(type.value, item));
    case 'array':
      return isByte(type.value) ? json : json.map((item) => fromJson(type.value, item));
    case 'tuple':
      return json.map((item, place) => fromJson(type.value[place], item));
    case 'struct':
      return mapFields(type.value, json, fromJson);
    case 'option':
      return json === null ? undefined : fromJson(type.value, json);
    case 'result': {
      const success = json.variant === 'Ok';
      return { success, value: fromJson(success ? type.value.ok : type.value.ko, json.value) };
    }
    case 'enum':
      return { type: json.variant, value: fromJson(contentOf(type, json.variant), json.value) };
  }
  throw new Error(`a type ${type.type} is not used here`);
}

/** JSON, from the library's value of a type. */
function toJson(type, value) {
  switch (type.type) {
    case 'void':
      return null;
    case 'primitive':
      return typeof value === 'boolean' || type.value === 'str' ? value : String(value);
    case 'AccountId32':
      return u8aToHex(decodeAddress(value));
    case 'sequence':
      return isByte(type.value) ? u8aToHex(value) : value.map((item) => toJson(type.value, item));
    case 'array':
      return isByte(type.value) ? value : value.map((item) => toJson(type.value, item));
    case 'tuple':
      return value.map((item, place) => toJson(type.value[place], item));
    case 'struct':
      return mapFields(type.value, value, toJson);
    case 'option':
      return value === undefined ? null : toJson(type.value, value);
    case 'result':
      return value.success
        ? { variant: 'Ok', value: toJson(type.value.ok, value.value) }
        : { variant: 'Err', value: toJson(type.value.ko, value.value) };
    case 'enum':
      return { variant: value.type, value: toJson(contentOf(type, value.type), value.value) };
  }
  throw new Error(`a type ${type.type} is not used here`);
}

const isByte = (type) => type.type === 'primitive' && type.value === 'u8';

const mapFields = (types, values, convert) =>
  Object.fromEntries(
    Object.entries(types).map(([name, type]) => [name, convert(type, values[name])]),
  );

function contentOf(type, variant) {
  const content = type.value[variant];
  return content.type === 'lookupEntry' ? content.value : content;
}

const { bundle, cases } = JSON.parse(readFileSync(0, 'utf8'));
const metadata = JSON.parse(readFileSync(bundle, 'utf8'));
const lookup = getInkLookup(metadata);
const builder = getInkDynamicBuilder(lookup);
const client = getInkClient({ metadata });
const { constructors, messages, events } = metadata.spec;

const find = (list, label) => list.find((item) => item.label === label);
const argumentsOf = (spec) => ({
  type: 'struct',
  value: Object.fromEntries(spec.args.map((arg) => [arg.label, lookup(arg.type.type)])),
});
const returned = (spec) => lookup(spec.returnType.type);

// Where the client (which users call) has a direction, it is taken; the builder has the other one.
const KINDS = {
  call: (label) => ({
    type: argumentsOf(find(messages, label)),
    encode: (value) => client.message(label).encode(value),
    decode: (bytes) => builder.buildMessage(label).call.dec(bytes),
  }),
  result: (label) => ({
    type: returned(find(messages, label)),
    encode: (value) => builder.buildMessage(label).value.enc(value),
    decode: (data) => client.message(label).decode({ data }),
  }),
  construction: (label) => ({
    type: argumentsOf(find(constructors, label)),
    encode: (value) => client.constructor(label).encode(value),
    decode: (bytes) => builder.buildConstructor(label).call.dec(bytes),
  }),
  constructed: (label) => ({
    type: returned(find(constructors, label)),
    encode: (value) => builder.buildConstructor(label).value.enc(value),
    decode: (data) => client.constructor(label).decode({ data }),
  }),
  event: (label) => {
    const spec = find(events, label);
    const topic = spec.signature_topic;
    return {
      type: argumentsOf(spec),
      encode: (value) => builder.buildEvent(topic).enc({ type: label, value }),
      decode: (data) => {
        const event = client.event.decode({ data }, topic);
        if (event.type !== label) throw new Error(`decoded as ${event.type}, not ${label}`);
        return event.value;
      },
    };
  },
};

const outcomes = cases.map(({ kind, label, value, bytes }) => {
  const codec = KINDS[kind](label);
  return {
    encoded: u8aToHex(codec.encode(fromJson(codec.type, value))),
    decoded: toJson(codec.type, codec.decode(hexToU8a(bytes))),
  };
});
process.stdout.write(JSON.stringify(outcomes));
