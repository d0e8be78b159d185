// Submits a job with polkadot-js and reads it back.
//
//     node example.mjs BUNDLE URL ADDRESS WORKER PAYLOAD_HEX PUBLIC_KEY_HEX
import { readFileSync } from 'node:fs';

import { ApiPromise, WsProvider } from '@polkadot/api';
import { ContractPromise } from '@polkadot/api-contract';
import { Keyring } from '@polkadot/keyring';

const [bundle, url, address, worker, payload, publicKey] = process.argv.slice(2);
const api = await ApiPromise.create({ provider: new WsProvider(url), noInitWarn: true });
const contract = new ContractPromise(api, readFileSync(bundle, 'utf8'), address);
const owner = new Keyring({ type: 'sr25519' }).addFromUri('//Alice');

// Always give both limits: without a proof size every dry run ends with OutOfGas.
const most = api.registry.createType('WeightV2', { refTime: 10n ** 12n, proofSize: 10n ** 7n });
const limits = { gasLimit: most, storageDepositLimit: null };
const { output: genesis } = await contract.query.genesisHash(owner.address, limits);
if (!genesis.asOk.eq(api.genesisHash)) throw new Error('deployed for another chain');

// 1. A dry run: Ok(Ok(job id)), or Ok(Err(the reason)).
const job = [payload, publicKey, { workers: [Number(worker)], ttl: 3_600_000 }];
const dryRun = await contract.query.submitConfidentialJob(owner.address, limits, ...job);
if (dryRun.output.asOk.isErr) throw new Error(`refused: ${dryRun.output.asOk.asErr.type}`);

// 2. The transaction, until it is final. The job's number is in the event, not in the dry run.
const gasLimit = dryRun.gasRequired;
const submitted = await new Promise((resolve, reject) => {
  const tx = contract.tx.submitConfidentialJob({ ...limits, gasLimit }, ...job);
  tx.signAndSend(owner, (result) => {
    if (result.isError) reject(new Error(String(result.dispatchError ?? result.status)));
    if (result.isFinalized) resolve(result.contractEvents[0]);
  }).catch(reject);
});
const [jobId] = submitted.args;

// 3. Read it back.
const { output } = await contract.query.getJob(owner.address, limits, jobId);
console.log(JSON.stringify(output.asOk.unwrap()));
process.exit(); // Hanging up in good order takes the node five seconds.
