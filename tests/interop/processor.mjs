// The contract through @polkadot/api-contract: deploy, read, dry run, send. No knowledge of what a
// message means.
import { readFileSync } from 'node:fs';

import { ApiPromise, WsProvider } from '@polkadot/api';
import { CodePromise, ContractPromise } from '@polkadot/api-contract';
import { u8aToHex } from '@polkadot/util';

// What a dry run may use. Without a limit, api-contract 16.5.6 asks for a proof size of 0, and
// everything runs out of gas.
const DRY_RUN = { refTime: 1_000_000_000_000, proofSize: 10_000_000 };
const DEPLOYMENT = { refTime: 100_000_000_000, proofSize: 3_000_000 };
const FINAL_TIMEOUT_MS = 30_000;

/** Connects once: a node that is not there is an error, not endless attempts. */
export async function connect(url) {
  const provider = new WsProvider(url, false);
  await provider.connect();
  const api = new ApiPromise({ provider, throwOnConnect: true, noInitWarn: true });
  await api.isReadyOrError.catch((error) => {
    throw new Error(`${url}: ${error.message}`);
  });
  return api;
}

export const readBundle = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** A transaction that the node included and whose dispatch failed. */
export class DispatchError extends Error {}

/** Signs, sends, and returns the result once it is final. */
export function sendFinal(tx, signer) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('not final in time')), FINAL_TIMEOUT_MS);
    const done = (settle, value) => {
      clearTimeout(timer);
      settle(value);
    };
    tx.signAndSend(signer, { nonce: -1 }, (result) => {
      if (result.isError && !result.dispatchError) {
        done(reject, new Error(`the transaction is ${result.status.type}`));
      } else if (result.isFinalized && result.dispatchError) {
        const { section, name } = tx.registry.findMetaError(result.dispatchError.asModule);
        done(reject, new DispatchError(`${section}.${name}`));
      } else if (result.isFinalized) {
        done(resolve, result);
      }
    }).catch((error) => done(reject, error));
  });
}

export class Processor {
  constructor(api, bundle, address) {
    this.api = api;
    this.contract = new ContractPromise(api, bundle, address);
    this.abi = this.contract.abi;
    this.address = address;
    /** The labels of all messages that a node has answered. */
    this.called = new Set();
    /** Every event that was emitted, as the node stores it and as polkadot-js splits it. */
    this.events = [];
  }

  /** Uploads and instantiates the bundle's code, for the chain that `api` is connected to. */
  static async deploy(api, bundle, signer, parameters) {
    const code = new CodePromise(api, bundle, undefined);
    const gasLimit = api.registry.createType('WeightV2', DEPLOYMENT);
    const limits = { gasLimit, storageDepositLimit: null };
    const tx = code.tx.new(limits, api.genesisHash.toHex(), parameters);
    const { contract } = await sendFinal(tx, signer);
    return new Processor(api, bundle, contract.address.toString());
  }

  get id() {
    return this.contract.address.toHex();
  }

  /**
   * What the message would do now. `refusal` is the contract's error or null, `value` the decoded
   * value without its two `Result`s.
   */
  async dryRun(label, args, caller) {
    const message = this.abi.findMessage(label);
    const options = { gasLimit: this.#weight(DRY_RUN), storageDepositLimit: null };
    const answer = await this.contract.query[message.method](caller, options, ...args);
    if (answer.result.isErr) {
      throw new Error(`${label}: ${answer.result.asErr}`);
    }
    this.called.add(label);
    const returned = answer.output; // Result<_, LangError>
    if (returned.isErr) {
      throw new Error(`${label}: ${returned.asErr.type}`);
    }
    const inner = returned.asOk;
    const isRefusable = 'isErr' in inner; // Result<_, Error>; reads return the value itself
    const refusal = isRefusable && inner.isErr ? inner.asErr.type : null;
    const isReverted = answer.result.asOk.flags.bits.eqn(1);
    if ((refusal !== null) !== isReverted) {
      throw new Error(`${label}: the revert flag and the value differ`);
    }
    const value = isRefusable ? (refusal ? null : inner.asOk) : inner;
    return { refusal, value, gas: answer.gasRequired };
  }

  /** The value of a message that is not refused. */
  async read(label, args = [], caller = this.address) {
    const { refusal, value } = await this.dryRun(label, args, caller);
    if (refusal) {
      throw new Error(`${label}: ${refusal}`);
    }
    return value;
  }

  /** Sends a message after a dry run; returns its value and its events once final. */
  async send(label, args, signer) {
    const { refusal, value, gas } = await this.dryRun(label, args, signer.address);
    if (refusal) {
      throw new Error(`${label}: ${refusal}`);
    }
    const events = await this.sendUnchecked(label, args, signer, gas);
    return { value, events };
  }

  /** Sends a message as it is; `DispatchError` when the chain refuses it. */
  async sendUnchecked(label, args, signer, gas = this.#weight(DRY_RUN)) {
    // A fifth more than the dry run needed: blocks go on while it is on its way.
    const withMargin = (amount) => amount.toBn().muln(12).divn(10);
    const gasLimit = this.#weight({
      refTime: withMargin(gas.refTime),
      proofSize: withMargin(gas.proofSize),
    });
    const { method } = this.abi.findMessage(label);
    const tx = this.contract.tx[method]({ gasLimit, storageDepositLimit: null }, ...args);
    const result = await sendFinal(tx, signer);
    const records = result.filterRecords('contracts', 'ContractEmitted');
    const decoded = result.contractEvents ?? [];
    if (decoded.length !== records.length) {
      throw new Error(`${label}: ${decoded.length} of ${records.length} events were decoded`);
    }
    return decoded.map((event, place) => this.#keep(event, records[place]));
  }

  /** One event as `{ name, fields }`, and the same with the bytes in `this.events`. */
  #keep({ event, args }, record) {
    const { label, args: spec } = this.abi.json.spec.events[event.index];
    const fields = Object.fromEntries(spec.map((field, place) => [field.label, args[place]]));
    this.events.push({
      name: label,
      topics: record.topics.map((topic) => topic.toHex()),
      data: record.event.data[1].toHex(),
      fields: Object.fromEntries(
        Object.entries(fields).map(([name, value]) => [name, u8aToHex(value.toU8a())]),
      ),
    });
    return { name: label, fields };
  }

  #weight(weight) {
    return this.api.registry.createType('WeightV2', weight);
  }
}
