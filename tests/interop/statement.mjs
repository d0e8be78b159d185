// What workers sign (protocol 3.1 and 3.3), written from the protocol's text with polkadot-js.
//
// Nothing here knows of `<Bytes>`: that wrapping is the browser extension's (`signRaw`), a pair of
// `@polkadot/keyring` signs what it is given.
import { bnToU8a, hexToU8a, stringToU8a, u8aConcat, u8aToHex } from '@polkadot/util';
import { blake2AsU8a } from '@polkadot/util-crypto';

const OUTCOME_BYTES = { Completed: 1, Failed: 2 };
const SCHEMES = { sr25519: { byte: 1, variant: 'Sr25519' }, ecdsa: { byte: 2, variant: 'Ecdsa' } };

const tag = (text) => u8aConcat(new Uint8Array([0xff]), stringToU8a(text));
const integer = (value, bitLength) => bnToU8a(BigInt(value), { bitLength, isLe: true });

/** The 248 bytes about one job; hashes and keys are 0x text, integers anything BigInt() takes. */
export function encodeStatement(statement) {
  return u8aConcat(
    tag('phala-job-processor/job-attestation/v1'),
    hexToU8a(statement.genesis_hash),
    hexToU8a(statement.contract),
    integer(statement.job_id, 128),
    hexToU8a(statement.payload_hash),
    new Uint8Array([OUTCOME_BYTES[statement.outcome]]),
    hexToU8a(statement.result_hash),
    integer(statement.units, 64),
    hexToU8a(statement.measurement),
    integer(statement.started_at, 64),
    integer(statement.finished_at, 64),
    integer(statement.issued_at, 64),
  );
}

/** The bytes by which a worker proves that it has its signing key. */
export function encodeRegistration(registration, pair, { genesis_hash, contract }) {
  return u8aConcat(
    tag('phala-job-processor/worker-registration/v1'),
    hexToU8a(genesis_hash),
    hexToU8a(contract),
    signingKeyBytes(pair),
    hexToU8a(registration.encryption_key),
    hexToU8a(registration.measurement),
    hexToU8a(registration.evidence_hash),
    integer(registration.valid_until, 64),
  );
}

/** The 34 bytes of section 3: the scheme, the key, and for sr25519 one zero byte at the end. */
function signingKeyBytes(pair) {
  const bytes = new Uint8Array(34);
  bytes[0] = SCHEMES[pair.type].byte;
  bytes.set(pair.publicKey, 1);
  return bytes;
}

/** The pair's key as the contract's `PublicKey`. */
export function publicKeyOf(pair) {
  return { [SCHEMES[pair.type].variant]: u8aToHex(pair.publicKey) };
}

/**
 * The contract's `Signature` over `message`: the protocol wants a signature over the 32 bytes
 * blake2_256(message).
 *
 * An ecdsa pair of polkadot-js hashes what it signs with BLAKE2b-256 by itself, so it is given the
 * message; an sr25519 pair signs what it is given, so it is given the digest.
 */
export function signWith(pair, message) {
  return asSignature(pair, pair.sign(pair.type === 'ecdsa' ? message : blake2AsU8a(message)));
}

/** Raw signature bytes as the contract's `Signature`. */
export function asSignature(pair, bytes) {
  return { [SCHEMES[pair.type].variant]: u8aToHex(bytes) };
}
