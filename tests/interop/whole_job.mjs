// Everything that our contract can do, done by polkadot-js: every message, every event, every
// refusal that a node can be brought to.
//
//     node whole_job.mjs BUNDLE URL ADDRESS
//
// It knows the `.contract` file, the protocol's text, and a node with the contract (`deploy.mjs`).
// //Alice must be the admin and have money; keys and accounts of everybody else are new in each
// run. It prints a report in JSON, which test_polkadot_js.py judges.
import { Keyring } from '@polkadot/keyring';
import { stringToU8a, u8aConcat, u8aToHex, u8aWrapBytes } from '@polkadot/util';
import { blake2AsHex, blake2AsU8a, randomAsHex, randomAsU8a } from '@polkadot/util-crypto';

import { DispatchError, Processor, connect, readBundle, sendFinal } from './processor.mjs';
import {
  asSignature,
  encodeRegistration,
  encodeStatement,
  publicKeyOf,
  signWith,
} from './statement.mjs';

const ZERO = `0x${'00'.repeat(32)}`;
const DAY = 86_400_000;
const MAX_U32 = 0xffff_ffff;
const MONEY = 1_000_000_000_000_000n;

const [bundlePath, url, address] = process.argv.slice(2);
const bundle = readBundle(bundlePath);
const api = await connect(url);
const keyring = new Keyring({ type: 'sr25519' });
const alice = keyring.addFromUri('//Alice');
const processor = new Processor(api, bundle, address);
const refused = {};

const newPair = (type = 'sr25519') => keyring.addFromSeed(randomAsU8a(32), {}, type);

function expect(condition, words) {
  if (!condition) {
    throw new Error(words);
  }
}

function same(found, wanted, words) {
  expect(String(found) === String(wanted), `${words}: ${found}, not ${wanted}`);
}

/** The node's own refusal: the contract ran there and reverted with this error. */
async function refuses(error, label, args, caller) {
  const { refusal } = await processor.dryRun(label, args, caller.address);
  same(refusal, error, label);
  (refused[error] ??= []).push(label);
}

/** Sends a message; returns the fields of its events in one object. */
async function act(label, args, signer) {
  const { events } = await processor.send(label, args, signer);
  expect(events.length > 0, `${label} emitted nothing`);
  return Object.assign({}, ...events.map((event) => event.fields));
}

const statusOf = async (job) => (await processor.read('get_job', [job.id])).unwrap().status;

// --- The contract is the one we mean, and the accounts of this run have money. ---

same(await processor.read('genesis_hash'), api.genesisHash, 'genesis hash of the contract');
same(await processor.read('admin'), alice.address, 'admin');
const foundParameters = await processor.read('parameters');
const found = Object.fromEntries(foundParameters.entries());
const [owner, staff, stranger] = [newPair(), newPair(), newPair()];
await sendFinal(
  api.tx.utility.batchAll(
    [owner, staff].map((account) => api.tx.balances.transferKeepAlive(account.address, MONEY)),
  ),
  alice,
);

// --- Administration. ---

// Ten seconds is the shortest time to live that the contract allows; a job that expires needs it.
const hasty = { ...found, minTtl: 10_000, maxAttestationAge: 30_000, maxClockSkew: 60_000 };
await refuses('NotAdmin', 'set_parameters', [hasty], stranger);
await refuses('ParameterOutOfRange', 'set_parameters', [{ ...hasty, rateLimit: 0 }], alice);
await act('set_parameters', [hasty], alice);
for (const role of ['Registrar', 'Operator', 'Guardian']) {
  await act('grant_role', [staff.address, role], alice);
  expect((await processor.read('has_role', [staff.address, role])).isTrue, `has ${role}`);
}
await refuses('NoPendingAdmin', 'accept_admin', [], stranger);
for (const [from, to] of [[alice, staff], [staff, alice]]) {
  await act('propose_admin', [to.address], from);
  await act('accept_admin', [], to);
}

// --- Workers. ---

const domain = { genesis_hash: api.genesisHash.toHex(), contract: processor.id };
const [measurement, otherMeasurement] = [randomAsHex(32), randomAsHex(32)];
await refuses('MissingRole', 'allow_measurement', [measurement], stranger);
for (const value of [measurement, otherMeasurement]) {
  await act('allow_measurement', [value], staff);
  expect((await processor.read('has_measurement', [value])).isTrue, 'measurement allowed');
}

function registrationOf(pair, changes = {}) {
  return {
    signing_key: publicKeyOf(pair),
    encryption_key: randomAsHex(32),
    measurement,
    evidence_hash: randomAsHex(32),
    endpoint: u8aToHex(stringToU8a('https://worker.example/')),
    valid_until: Date.now() + DAY,
    ...changes,
  };
}

function registrationArguments(pair, changes = {}) {
  const registration = registrationOf(pair, changes);
  const possession = signWith(pair, encodeRegistration(registration, pair, domain));
  return [camel(registration), possession];
}

/** polkadot-js names the fields of a struct in camel case. */
function camel(value) {
  const rename = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([name, held]) => [rename(name), held]));
}

async function register(pair, changes) {
  const args = registrationArguments(pair, changes);
  const { worker } = await act('register_worker', args, staff);
  const read = (await processor.read('worker_by_key', [publicKeyOf(pair)])).unwrap();
  same(read.worker, worker, 'number of the worker');
  return { pair, id: worker.toNumber(), measurement: args[0].measurement };
}

const sr25519 = await register(newPair('sr25519'));
const ecdsa = await register(newPair('ecdsa'));
const doomed = await register(newPair('sr25519'), { measurement: otherMeasurement });
const unknown = newPair('ecdsa');

const registering = (changes) => registrationArguments(unknown, changes);
const [registration, possession] = registering();
for (const [error, args] of [
  ['EndpointTooLong', registering({ endpoint: `0x${'61'.repeat(129)}` })],
  ['InvalidKey', registering({ encryption_key: ZERO })],
  ['MeasurementNotAllowed', registering({ measurement: randomAsHex(32) })],
  ['KeyAlreadyRegistered', registrationArguments(ecdsa.pair)],
  ['ValidityOutOfRange', registering({ valid_until: Date.now() + 400 * DAY })],
  ['KeyMismatch', [registration, { Sr25519: randomAsHex(64) }]],
  ['BadSignature', [{ ...registration, evidenceHash: randomAsHex(32) }, possession]],
]) {
  await refuses(error, 'register_worker', args, staff);
}

const { encryptionKey } = (await processor.read('get_worker', [sr25519.id])).unwrap();
const renewed = registrationOf(sr25519.pair, {
  encryption_key: encryptionKey.toHex(),
  valid_until: Date.now() + 2 * DAY,
});
const renewal = signWith(sr25519.pair, encodeRegistration(renewed, sr25519.pair, domain));
await act(
  'renew_worker',
  [sr25519.id, renewed.evidence_hash, renewed.valid_until, renewal],
  staff,
);

const jobOf = (...workers) => ({ workers: workers.map(({ id }) => id), ttl: 3_600_000 });
const payload = randomAsU8a(1_000);
const replyKey = randomAsHex(32);
const submitting = (options, key = replyKey, bytes = payload) => [u8aToHex(bytes), key, options];
await act('suspend_worker', [doomed.id], staff);
await refuses('WorkerNotTrusted', 'submit_confidential_job', submitting(jobOf(doomed)), owner);
await act('reinstate_worker', [doomed.id], staff);
expect((await processor.read('is_trusted', [doomed.id])).isTrue, 'trusted');
await refuses('WorkerNotFound', 'suspend_worker', [MAX_U32], staff);

// --- Submitting. ---

async function submit(options, bytes = payload) {
  const args = submitting(options, replyKey, bytes);
  const { job_id } = await act('submit_confidential_job', args, owner);
  return { id: job_id.toBigInt(), payloadHash: blake2AsHex(bytes) };
}

const expiring = await submit({ ...jobOf(sr25519), ttl: 10_000 });
const one = jobOf(sr25519);
for (const [error, args] of [
  ['EmptyPayload', submitting(one, replyKey, new Uint8Array())],
  ['PayloadTooLarge', submitting(one, replyKey, new Uint8Array(found.maxPayload.toNumber() + 1))],
  ['InvalidKey', submitting(one, ZERO)],
  ['TtlOutOfRange', submitting({ ...one, ttl: 9_999 })],
  ['NoWorkers', submitting(jobOf())],
  ['TooManyWorkers', submitting({ ...one, workers: [1, 2, 3, 4, 5] })],
  ['DuplicateWorker', submitting(jobOf(sr25519, sr25519))],
  ['WorkerNotFound', submitting({ ...one, workers: [MAX_U32] })],
]) {
  await refuses(error, 'submit_confidential_job', args, owner);
}
const referring = (length, location) => [randomAsHex(32), length, location, replyKey, one];
const tooLarge = found.maxReference.toBigInt() + 1n;
await refuses('ReferenceTooLarge', 'submit_job_reference', referring(tooLarge, '0x'), owner);
const tooLong = `0x${'61'.repeat(257)}`;
await refuses('LocationTooLong', 'submit_job_reference', referring(1, tooLong), owner);
const location = u8aToHex(stringToU8a('https://blobs.example/'));
const referred = await act('submit_job_reference', referring(50_000, location), owner);
const referenceId = referred.job_id;
const { encryptedPayload } = (await processor.read('get_job', [referenceId])).unwrap();
const reference = encryptedPayload.asReference;
same(reference.get('length'), 50_000, 'length of the reference');
same(reference.get('location').toHex(), location, 'location of the reference');

await act('set_parameters', [{ ...hasty, rateLimit: 1 }], alice);
await refuses('RateLimited', 'submit_confidential_job', submitting(one), owner);
same(await processor.read('rate_limit_left', [owner.address]), 0, 'jobs left');
await act('set_parameters', [hasty], alice);

// --- One whole job: submit, read back, record the worker's statement, mark. ---

const job = await submit(one);
const stored = (await processor.read('get_job', [job.id])).unwrap();
same(stored.encryptedPayload.asInline.toHex(), u8aToHex(payload), 'payload');
same(stored.payloadHash, job.payloadHash, 'payload hash');
same(stored.owner, owner.address, 'owner');
same(stored.status, 'Submitted', 'status');
const tooEarly = stored.createdAt.toNumber() - hasty.maxClockSkew - 1;

/** A signed statement as the arguments of `record_attestation`. */
function recording(about, worker, changes = {}, sign = signWith) {
  const now = Date.now();
  const statement = {
    ...domain,
    job_id: about.id,
    payload_hash: about.payloadHash,
    outcome: 'Completed',
    result_hash: blake2AsHex(stringToU8a(`result of ${about.id}`)),
    units: 7,
    measurement: worker.measurement,
    started_at: now,
    finished_at: now,
    issued_at: now,
    ...changes,
  };
  const { outcome, units, result_hash, started_at, finished_at, issued_at } = statement;
  const signature = sign(worker.pair, encodeStatement(statement));
  const proof = camel({ outcome, units, started_at, finished_at, issued_at, signature });
  return [about.id, result_hash, proof, publicKeyOf(worker.pair)];
}

const at = (time) => ({ started_at: time, finished_at: time, issued_at: time });
const digestOf = (message) => blake2AsU8a(message);
const otherScheme = () => ({ Ecdsa: u8aToHex(new Uint8Array(65)) });
// What wallets do, and what polkadot-js' ecdsa would do to a digest: other bytes, so refused.
const wrapped = (pair, message) => asSignature(pair, pair.sign(u8aWrapBytes(digestOf(message))));
const undigested = (pair, message) => asSignature(pair, pair.sign(message));
const hashedTwice = (pair, message) => asSignature(pair, pair.sign(digestOf(message)));
const ecdsaJob = await submit(jobOf(ecdsa));
for (const [error, args] of [
  ['JobNotFound', recording({ ...job, id: 1n << 100n }, sr25519)],
  ['WorkerNotFound', recording(job, { ...ecdsa, pair: unknown })],
  ['KeyMismatch', recording(job, sr25519, {}, otherScheme)],
  ['WorkerNotEligible', recording(job, ecdsa)],
  ['EmptyResultHash', recording(job, sr25519, { result_hash: ZERO })],
  ['StatementTimesInverted', recording(job, sr25519, { finished_at: Date.now() + 1_000 })],
  ['StatementBeforeJob', recording(job, sr25519, { started_at: tooEarly })],
  ['StatementFromFuture', recording(job, sr25519, at(Date.now() + DAY))],
  ['StatementTooOld', recording(job, sr25519, at(Date.now() - 50_000))],
  ['BadSignature', recording(job, sr25519, {}, wrapped)],
  ['BadSignature', recording(job, sr25519, {}, undigested)],
  ['BadSignature', recording(job, { ...sr25519, measurement: otherMeasurement })],
  ['BadSignature', recording(ecdsaJob, ecdsa, {}, hashedTwice)],
]) {
  await refuses(error, 'record_attestation', args, stranger);
}

// The same without a dry run: the chain includes it, takes the fee, and changes nothing.
const forged = recording(job, sr25519, {}, wrapped);
const outcome = await processor
  .sendUnchecked('record_attestation', forged, staff)
  .catch((error) => error);
expect(outcome instanceof DispatchError, 'a forged statement is refused as a transaction too');
same(outcome.message, 'contracts.ContractReverted', 'dispatch error');
same(await statusOf(job), 'Submitted', 'status after a forgery');

await act('record_attestation', recording(job, sr25519), staff);
await refuses('AlreadyAttested', 'record_attestation', recording(job, sr25519), staff);
same(await processor.read('attestation_status', [job.id]), 'Valid', 'attestation status');
expect((await processor.read('verify_attestation', [job.id])).isTrue, 'verified');
const attestation = (await processor.read('get_attestation', [job.id])).unwrap();
same(attestation.worker, sr25519.id, 'worker of the attestation');
await refuses('NotJobOwner', 'mark_job_processed', [job.id], stranger);
await act('mark_job_processed', [job.id], owner);
await refuses('WrongStatus', 'mark_job_processed', [job.id], owner);
expect((await processor.read('get_job', [job.id])).unwrap().processed.isTrue, 'processed');

// --- Several at once, by an ECDSA worker; the second item fails alone. ---

const completion = ([jobId, resultHash, attestationProof, teeWorkerPubkey]) =>
  ({ jobId, resultHash, attestationProof, teeWorkerPubkey });
const honest = completion(recording(ecdsaJob, ecdsa));
const late = completion(recording(job, sr25519));
await refuses('TooManyItems', 'complete_jobs', [Array(11).fill(honest)], staff);
const { value: items } = await processor.send('complete_jobs', [[honest, late]], staff);
expect(items[0].isOk && items[1].isErr, 'one of two items succeeds');
same(items[1].asErr, 'AlreadyAttested', 'error of the second item');
same(await statusOf(ecdsaJob), 'Processed', 'status of the job of the ECDSA worker');

// --- Jobs that end otherwise. ---

const failing = await submit(jobOf(sr25519, ecdsa));
const failed = { outcome: 'Failed' };
await act('record_attestation', recording(failing, sr25519, failed), staff);
await refuses('AlreadyFailed', 'record_attestation', recording(failing, sr25519, failed), staff);
await act('record_attestation', recording(failing, ecdsa, failed), staff);
same(await statusOf(failing), 'Failed', 'status after all workers failed');

const withdrawn = await submit(one);
await act('cancel_job', [withdrawn.id], owner);
await act('purge_job', [withdrawn.id], owner);
expect((await processor.read('get_job', [withdrawn.id])).isNone, 'purged');
await refuses('AccountInUse', 'release_account', [], owner);
await processor.send('release_account', [], staff); // It has no jobs: nothing to release.

const orphan = await submit(jobOf(doomed));
await act('record_attestation', recording(orphan, doomed), staff);
await act('revoke_worker', [doomed.id, randomAsHex(32)], staff);
await refuses('WorkerRevoked', 'reinstate_worker', [doomed.id], staff);
await refuses('AttestationNotValid', 'mark_job_processed', [orphan.id], owner);
await act('revoke_measurement', [otherMeasurement], staff);
await act('cancel_job', [orphan.id], owner);

// --- Modes and code. ---

await refuses('WrongMode', 'set_code', [randomAsHex(32)], alice);
await act('set_mode', ['Halted'], alice);
same(await processor.read('mode'), 'Halted', 'mode');
await refuses('SetCodeFailed', 'set_code', [randomAsHex(32)], alice);
await act('set_code', [bundle.source.hash], alice);
await act('set_mode', ['Running'], alice);
expect((await processor.read('version')).toNumber() >= 1, 'version of the storage');

// --- Pages. ---

await refuses('LimitOutOfRange', 'jobs_page', [1, 51], stranger);
await refuses('LimitOutOfRange', 'workers_page', [1, 0], stranger);
const counter = await processor.read('get_job_counter');
same((await processor.read('jobs_page', [orphan.id, 1])).items[0].status, 'Cancelled', 'head');
same((await processor.read('jobs_page', [1, 50])).total, counter, 'jobs');
expect((await processor.read('workers_page', [sr25519.id, 2])).items.length === 2, 'workers');

// --- A deadline passes. This is the only thing to wait for, and most of it is over by now. ---

await refuses('DeadlineNotPassed', 'expire_job', [referenceId], stranger);
const { deadline } = (await processor.read('get_job', [expiring.id])).unwrap();
const rest = deadline.toNumber() + 1_000 - Date.now();
await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
// A dry run is judged at the last block's time, and an idle development chain makes no blocks.
await sendFinal(api.tx.system.remark('0x'), alice);
await refuses('DeadlinePassed', 'record_attestation', recording(expiring, sr25519), stranger);
await act('expire_job', [expiring.id], staff);

// --- Leave the contract as it was found. ---

for (const role of ['Registrar', 'Operator', 'Guardian']) {
  await act('revoke_role', [staff.address, role], alice);
}
await act('set_parameters', [found], alice);

const report = {
  worker: sr25519.id,
  messages: [...processor.called],
  refused,
  events: processor.events,
};
console.log(JSON.stringify(report));
process.exit(); // Hanging up in good order takes the node five seconds.
